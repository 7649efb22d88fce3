"""Packing of the maps of several scales to one vector, and the shapes that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pyramid:
    """Shapes of the hidden maps of a multiscale DEQ, finest first; each scale halves the one before.

    Raises:
        ValueError: if no scale is given or a map would vanish.
    """

    channels: tuple[int, ...]  # of each scale
    size: tuple[int, int]  # height and width of the finest map

    def __post_init__(self) -> None:
        if not self.channels or min(self.size) < 2 ** (len(self.channels) - 1):
            raise ValueError(f"{len(self.channels)} scales do not fit maps of {self.size}: each scale halves the one before")

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """``(C, H, W)`` of each scale; an odd side is rounded up, as a convolution of stride 2 does."""
        shapes, (height, width) = [], self.size
        for channels in self.channels:
            shapes.append((channels, height, width))
            height, width = -(-height // 2), -(-width // 2)
        return tuple(shapes)

    @property
    def numel(self) -> int:
        """Width n of the packed state."""
        return sum(prod(shape) for shape in self.shapes)

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """Views ``(B, C, H, W)`` of a packed state ``(B, n)``."""
        parts = packed.split([prod(shape) for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def pack(self, maps: list[Tensor]) -> Tensor:
        """One matrix ``(B, n)``."""
        return torch.cat([scale.flatten(1) for scale in maps], dim=1)
