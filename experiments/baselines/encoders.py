"""Encoders: convolutional for VAE, RAE and AE (Ghosh et al. 2020, appendix), an MDEQ for MDEQ-VAE and MDEQ-AE (C.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Literal

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from experiments.baselines.latents import Code
from jiio_lightning.models.head import PooledHead
from jiio_lightning.models.injection import ImageInjection
from jiio_lightning.models.interface import Solve
from jiio_lightning.models.mdeq import MDEQCell

FACTORS = (1, 2, 4, 8)
"""Channels of the convolutions over their width: 128, 256, 512, 1024 in the RAE paper."""


class Encoder(nn.Module, ABC):
    """A network from images ``(C, H, W)`` to latents of width d and, if it is variational, a variance for each."""

    def __init__(self, latent: int, image_shape: tuple[int, int, int], variational: bool) -> None:
        super().__init__()
        self.latent = latent
        self.image_shape = image_shape
        self.variational = variational

    @property
    def outputs(self) -> int:
        """Outputs of the network for each image: d means, then d logarithms of variances if it is variational."""
        return self.latent * (2 if self.variational else 1)

    @abstractmethod
    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """Images ``(B, C, H, W)`` to ``(B, outputs)``; ``solve`` solves the equilibria on the way."""

    def forward(self, image: Tensor, solve: Solve) -> Code:
        """Images ``(B, C, H, W)`` to their code."""
        return Code(*self.numbers(image, solve).split(self.latent, dim=1))


class ConvEncoder(Encoder):
    """conv - batch norm - ReLU, four times, each halving the image, then one linear layer.

    An image of less than 16 pixels a side is halved three times.

    Args:
        latent: width d of the latents (16 for MNIST, 128 for CIFAR-10, 64 for CelebA there).
        image_shape: ``(C, H, W)`` of the images, at least 8 pixels a side.
        width: channels of the first convolution (128 there); the others have 2, 4 and 8 times as many.
        kernel: side of the convolutions, 4 for MNIST and CIFAR-10, 5 for CelebA.
        variational: predict a variance for each latent, too.

    Raises:
        ValueError: if the images are too small.
    """

    def __init__(
        self,
        latent: PositiveInt,
        image_shape: tuple[int, int, int],
        width: PositiveInt = 128,
        kernel: Literal[4, 5] = 4,
        variational: bool = False,
    ) -> None:
        super().__init__(latent, image_shape, variational)
        inputs, *sides = image_shape
        if min(sides) < 8:
            raise ValueError(f"a ConvEncoder needs images of at least 8 pixels a side, image_shape is {tuple(image_shape)}")
        padding = (kernel - 1) // 2
        layers: list[nn.Module] = []
        for factor in FACTORS if min(sides) >= 16 else FACTORS[:-1]:
            layers += [nn.Conv2d(inputs, factor * width, kernel, stride=2, padding=padding, bias=False)]
            layers += [nn.BatchNorm2d(factor * width), nn.ReLU()]
            inputs, sides = factor * width, [(side + 2 * padding - kernel) // 2 + 1 for side in sides]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * prod(sides), self.outputs))

    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """The layers' output: there is nothing to solve."""
        return self.layers(image)


class MDEQEncoder(Encoder):
    """The generator's counterpart: "a similar architecture [...] except that the input injection and output layers are
    parameterized as in the [...] MDEQ classification networks" (C.2).

    The injection of the image drives the cell; it is computed once, not in every step of the solve.

    Args:
        latent: width d of the latents.
        channels: of each scale, finest first (Table 9).
        image_shape: ``(C, H, W)`` of the images.
        variational: predict a variance for each latent, too.
        downscale: the finest map has ``1 / downscale`` of the image's side.
        expansion: widening inside a residual block (Table 9: 5).
        groups: groups of the group norms in the residual blocks.
        fusion_groups: groups elsewhere.
        head_width: channels inside the head's bottlenecks.
        features: width of the pooled vector.

    Raises:
        ValueError: if the image's side is not a multiple of downscale.
    """

    def __init__(
        self,
        latent: PositiveInt,
        channels: tuple[int, ...],
        image_shape: tuple[int, int, int],
        variational: bool = False,
        downscale: Literal[1, 2, 4] = 1,
        expansion: PositiveInt = 5,
        groups: PositiveInt = 4,
        fusion_groups: PositiveInt = 8,
        head_width: PositiveInt = 16,
        features: PositiveInt = 128,
    ) -> None:
        super().__init__(latent, image_shape, variational)
        _, height, width = image_shape
        if height % downscale or width % downscale:
            raise ValueError(f"an image of {height}x{width} cannot be divided by downscale={downscale}")
        self.cell = MDEQCell(channels, (height // downscale, width // downscale), expansion, groups, fusion_groups)
        self.inject = ImageInjection(self.cell.pyramid, image_shape, downscale, fusion_groups)
        self.head = PooledHead(channels, self.outputs, head_width, features, fusion_groups)

    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """The head at the equilibrium of the cell."""
        z = solve(self.cell, self.inject(image), self.cell.pyramid.numel)
        return self.head(self.cell.pyramid.unpack(z))
