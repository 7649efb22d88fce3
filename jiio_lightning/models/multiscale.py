"""The scales of an MDEQ: their shapes, packed to one vector, and how they exchange information."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio_lightning.models.blocks import conv1x1, conv3x3, group_norm


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


class Down(nn.Module):
    """From scale ``source`` to the coarser ``target``, indices into ``channels``: a strided 3x3 convolution for each halving."""

    def __init__(self, channels: tuple[int, ...], source: int, target: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for scale in range(source, target):
            last = scale + 1 == target
            width = channels[target] if last else channels[source]
            layers += [conv3x3(channels[source], width, stride=2), group_norm(width, groups)]
            layers += [] if last else [nn.ReLU()]  # the sum of all scales is rectified, not its terms
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Up(nn.Module):
    """From a coarser scale to a finer one: 1x1 convolution, norm, nearest upsampling to the finer map's ``size``."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], groups: int) -> None:
        super().__init__()
        self.mix = conv1x1(inputs, outputs)
        self.norm = group_norm(outputs, groups)
        self.size = size

    def forward(self, z: Tensor) -> Tensor:
        return F.interpolate(self.norm(self.mix(z)), size=self.size, mode="nearest")


class Fusion(nn.Module):
    """Each scale becomes the sum of all scales brought to its shape, then ReLU - 1x1 - norm (post-fusion).

    ``gain``: initial weights of the last group norms.
    """

    def __init__(self, pyramid: Pyramid, groups: int, gain: float) -> None:
        super().__init__()
        scales = range(len(pyramid.channels))
        self.paths = nn.ModuleList(nn.ModuleList(_path(pyramid, i, j, groups) for i in scales) for j in scales)
        self.post = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv1x1(width, width), group_norm(width, groups, gain)) for width in pyramid.channels
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of all scales to maps of the same shapes."""
        return [
            post(sum(path(z) for path, z in zip(paths, maps, strict=True)))
            for paths, post in zip(self.paths, self.post, strict=True)
        ]


def _path(pyramid: Pyramid, source: int, target: int, groups: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source < target:
        return Down(pyramid.channels, source, target, groups)
    _, *size = pyramid.shapes[target]
    return Up(pyramid.channels[source], pyramid.channels[target], (size[0], size[1]), groups)
