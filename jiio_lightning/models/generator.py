"""The latent generator: f driven by a latent vector, images by a head that merges all scales (Sec. 4.1, C.2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from jiio_lightning.models.blocks import group_norm
from jiio_lightning.models.interface import Generator
from jiio_lightning.models.mdeq import MDEQCell


class MergedHead(nn.Module):
    """Image from all scales: upsample to the finest, concatenate, 1x1 - norm - ReLU - 3x3 - tanh, as MDEQ's segmentation head.

    An image ``(C, H, W)`` of ``scale`` pixels a side for one of the finest map's is made of it by pixel shuffling.
    """

    def __init__(self, channels: tuple[int, ...], image_shape: tuple[int, int, int], scale: int, groups: int) -> None:
        super().__init__()
        width = sum(channels)
        self.merge = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), group_norm(width, groups), nn.ReLU())
        self.paint = nn.Sequential(nn.Conv2d(width, image_shape[0] * scale**2, 3, padding=1), nn.PixelShuffle(scale), nn.Tanh())

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps ``(B, C_i, H_i, W_i)`` to an image ``(B, C, H, W)`` in [-1, 1]."""
        finest = maps[0].shape[-2:]
        merged = torch.cat([maps[0], *(F.interpolate(z, size=finest, mode="nearest") for z in maps[1:])], dim=1)
        return self.paint(self.merge(merged))


def unit_injection(latent: int, hidden: int) -> nn.Linear:
    """A linear map whose output has unit variance for x ~ N(0, I), around a bias of unit variance.

    It gives x natural units: a latent of length sqrt(d) moves z by its own size.
    """
    inject = nn.Linear(latent, hidden)
    nn.init.normal_(inject.weight, std=latent**-0.5)
    # A learned constant input: without it z would have to feed itself at x = 0, where every solve starts.
    nn.init.normal_(inject.bias)
    return inject


class LatentGenerator(Generator):
    """MDEQ generator: x is a latent vector, ``inject`` one linear map to all scales, h a merged head.

    Args:
        latent: width d of x (C.2: 128; B.3: 384).
        channels: of each scale, finest first (Table 9).
        image_shape: ``(C, H, W)`` of the images.
        downscale: the finest map has ``1 / downscale`` of the image's side.
        expansion: widening inside a residual block (Table 9: 5).
        groups: groups of the group norms in the residual blocks.
        fusion_groups: groups elsewhere.

    Raises:
        ValueError: if the image's side is not a multiple of downscale.
    """

    def __init__(
        self,
        latent: PositiveInt,
        channels: tuple[int, ...],
        image_shape: tuple[int, int, int],
        downscale: Literal[1, 2, 4] = 1,
        expansion: PositiveInt = 5,
        groups: PositiveInt = 4,
        fusion_groups: PositiveInt = 8,
    ) -> None:
        super().__init__()
        _, height, width = image_shape
        if height % downscale or width % downscale:
            raise ValueError(f"an image of {height}x{width} cannot be divided by downscale={downscale}")
        self.latent = latent
        self.image_shape = tuple(image_shape)
        self.cell = MDEQCell(tuple(channels), (height // downscale, width // downscale), expansion, groups, fusion_groups)
        self.inject = unit_injection(latent, self.cell.pyramid.numel)
        self.head = MergedHead(tuple(channels), (image_shape[0], height, width), downscale, fusion_groups)

    @property
    def hidden(self) -> int:
        return self.cell.pyramid.numel

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return self.cell(z, self.inject(x))

    def h(self, z: Tensor) -> Tensor:
        return self.head(self.cell.pyramid.unpack(z))
