"""The convolutional decoder of Ghosh et al. (2020, appendix), which C.2 borrows, and its form as an equilibrium network."""

from __future__ import annotations

from math import prod
from typing import Literal

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from jiio_lightning.models.interface import Generator, Solve

COARSEST = 8
"""Largest side of the map where the decoder starts: 8x8 for images of 32x32 (two doublings) and of 64x64 (three)."""


class ConvDecoder(nn.Module):
    """One linear layer to a coarse map, then transposed convolutions, each doubling it, and a last convolution.

    The linear layer makes 8 times ``width`` channels at a side of at most 8, the doublings 4, 2 and 1 times as many, each with
    batch norm and ReLU. Where the image's side is not the start's times a power of 2, it is cut from the next larger one.
    Ghosh et al. end with a sigmoid for images in [0, 1]; here a tanh gives images in [-1, 1].

    Args:
        latent: width d of the latents.
        image_shape: ``(C, H, W)`` of the images.
        width: a unit of channels (128 there).
        kernel: side of the convolutions, 4 for MNIST and CIFAR-10, 5 for CelebA.
    """

    def __init__(
        self, latent: PositiveInt, image_shape: tuple[int, int, int], width: PositiveInt = 128, kernel: Literal[4, 5] = 4
    ) -> None:
        super().__init__()
        self.latent = latent
        self.image_shape = image_shape
        outputs, *sides = image_shape
        doublings = max(1, (-(-max(sides) // COARSEST) - 1).bit_length())
        self.start = (8 * width, *(-(-side // 2**doublings) for side in sides))
        self.widen = nn.Linear(latent, prod(self.start))
        before, after = (kernel - 1) // 2, kernel // 2
        layers: list[nn.Module] = []
        inputs = self.start[0]
        for step in range(doublings):
            channels = width * max(4 >> step, 1)
            double = nn.ConvTranspose2d(inputs, channels, kernel, stride=2, padding=before, output_padding=kernel % 2, bias=False)
            layers += [double, nn.BatchNorm2d(channels), nn.ReLU()]
            inputs = channels
        # a transposed convolution of stride 1 is a convolution with its kernel turned round
        pad = nn.ZeroPad2d((before, after, before, after))
        self.layers = nn.Sequential(*layers, pad, nn.Conv2d(inputs, outputs, kernel), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Latents ``(B, d)`` to images ``(B, C, H, W)`` in [-1, 1]."""
        _, height, width = self.image_shape
        return self.layers(self.widen(x).unflatten(1, self.start))[..., :height, :width]


class ExplicitGenerator(Generator):
    r"""An explicit decoder D as an equilibrium that does not depend on z, so that every task and solver takes it.

    .. math:: f(z, x) = D(x), \quad J_z = 0, \quad h(z) = z

    Its forward and its adjoint solve end after one step. Our solvers return an iterate at which they have evaluated f, so that
    they need a budget of 2: one evaluation gives z = D(x), one is at it (``experiments/conf/solver/nested_explicit.yaml``).

    Args:
        decoder: D, latents to images in [-1, 1].
    """

    def __init__(self, decoder: ConvDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent = decoder.latent
        self.image_shape = decoder.image_shape

    @property
    def hidden(self) -> int:
        return prod(self.image_shape)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """D(x) as ``(B, C * H * W)``, whatever z."""
        return self.decoder(x).flatten(1)

    def h(self, z: Tensor) -> Tensor:
        """z as an image."""
        return z.unflatten(1, self.image_shape)

    def decode(self, x: Tensor, solve: Solve) -> Tensor:
        """D(x): there is nothing to solve."""
        return self.decoder(x)
