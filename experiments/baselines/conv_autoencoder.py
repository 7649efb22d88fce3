"""The convolutional encoder and decoder of Ghosh et al. (2020, appendix), which C.2 borrows for VAE, RAE and AE."""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import Tensor, nn

from experiments.baselines.interface import Decoder, Encoder
from jiio_lightning.models.interface import Solve

FACTORS = (1, 2, 4, 8)
"""Channels of the encoder's convolutions over its width: 128, 256, 512, 1024."""

COARSEST = 8
"""Largest side of the map where the decoder starts: 8x8 for images of 32x32 (two doublings) and of 64x64 (three)."""


class ConvEncoder(Encoder):
    """conv - batch norm - ReLU, four times, each halving the image, then one linear layer.

    An image of less than 16 pixels a side is halved three times.

    Args:
        latent: width d of the latents (16 for MNIST, 128 for CIFAR-10, 64 for CelebA there).
        image_shape: ``(C, H, W)`` of the images, at least 8 pixels a side.
        width: channels of the first convolution (128 there); the others have 2, 4 and 8 times as many.
        kernel: side of the convolutions, 4 for MNIST and CIFAR-10, 5 for CelebA.
        variational: give a variance to each latent too.

    Raises:
        ValueError: if the images are too small or there is nothing to make.
    """

    def __init__(
        self,
        latent: int,
        image_shape: tuple[int, int, int],
        width: int = 128,
        kernel: Literal[4, 5] = 4,
        variational: bool = False,
    ) -> None:
        super().__init__()
        _check(latent, image_shape, width)
        self.latent = latent
        self.image_shape = _shape(image_shape)
        self.variational = variational
        inputs, *sides = self.image_shape
        layers: list[nn.Module] = []
        for factor in FACTORS if min(sides) >= 16 else FACTORS[:-1]:
            layers += [nn.Conv2d(inputs, factor * width, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)]
            layers += [nn.BatchNorm2d(factor * width), nn.ReLU()]
            inputs, sides = factor * width, [_halved(side, kernel) for side in sides]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * prod(sides), self.outputs))

    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """Nothing is to be solved on the way."""
        return self.layers(image)


class ConvDecoder(Decoder):
    """One linear layer to a coarse map, then transposed convolutions, each doubling it, and a last one that paints.

    The linear layer makes 8 times ``width`` channels at a side of at most 8, the doublings 4, 2 and 1 times as many, each with
    batch norm and ReLU. Where the side of the image is not the start's times a power of 2, it is cut from the next larger one.
    There the images are in [0, 1] and painted by a sigmoid; here they are in [-1, 1] and painted by tanh.

    Args:
        latent: width d of the latents.
        image_shape: ``(C, H, W)`` of the images, at least 8 pixels a side.
        width: a unit of channels (128 there).
        kernel: side of the convolutions, 4 for MNIST and CIFAR-10, 5 for CelebA.

    Raises:
        ValueError: if the images are too small or there is nothing to make.
    """

    def __init__(self, latent: int, image_shape: tuple[int, int, int], width: int = 128, kernel: Literal[4, 5] = 4) -> None:
        super().__init__()
        _check(latent, image_shape, width)
        self.latent = latent
        self.image_shape = _shape(image_shape)
        outputs, *sides = self.image_shape
        doublings = max(1, (-(-max(sides) // COARSEST) - 1).bit_length())
        self.start = (8 * width, *(-(-side // 2**doublings) for side in sides))
        self.widen = nn.Linear(latent, prod(self.start))
        layers: list[nn.Module] = []
        inputs = self.start[0]
        for step in range(doublings):
            channels = width * max(4 >> step, 1)
            layers += [_doubling(inputs, channels, kernel), nn.BatchNorm2d(channels), nn.ReLU()]
            inputs = channels
        # a transposed convolution of stride 1 is a convolution with its kernel turned round
        before, after = (kernel - 1) // 2, kernel // 2
        pad = nn.ZeroPad2d((before, after, before, after))
        self.layers = nn.Sequential(*layers, pad, nn.Conv2d(inputs, outputs, kernel), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Latents ``(B, d)`` to images ``(B, C, H, W)`` in [-1, 1]."""
        _, height, width = self.image_shape
        return self.layers(self.widen(x).unflatten(1, self.start))[..., :height, :width]


def _check(latent: int, image_shape: tuple[int, int, int], width: int) -> None:
    if min(image_shape[1:]) < 8 or min(latent, width) < 1:
        raise ValueError(
            "a convolutional autoencoder needs images of at least 8 pixels a side, latent >= 1 and width >= 1, got "
            f"image_shape={tuple(image_shape)}, latent={latent} and width={width}"
        )


def _shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """A tuple: run files give lists."""
    channels, height, width = image_shape
    return channels, height, width


def _halved(side: int, kernel: int) -> int:
    """Side of a map after a convolution of stride 2 with ``(kernel - 1) // 2`` pixels of padding."""
    return (side + 2 * ((kernel - 1) // 2) - kernel) // 2 + 1


def _doubling(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the side of its map exactly."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2, output_padding=kernel % 2, bias=False)
