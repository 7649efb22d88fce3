"""Vectors from the maps of all scales: the classification head of MDEQ (Bai et al. 2020, App. A), with group norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio_lightning.models.blocks import group_norm


class Bottleneck(nn.Module):
    """1x1 - norm - ReLU - 3x3 - norm - ReLU - 1x1 - norm, plus a path of 1x1 - norm, then ReLU."""

    def __init__(self, inputs: int, width: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            group_norm(width, groups),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            group_norm(width, groups),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False),
            group_norm(outputs, groups),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), group_norm(outputs, groups))
        self.relu = nn.ReLU()

    def forward(self, z: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, H, W)``."""
        return self.relu(self.layers(z) + self.skip(z))


class GridMeans(nn.Module):
    """Adaptive average pooling to ``side`` by ``side`` means, as a product with a matrix: torch's own, forward and back, took six
    times as long (a fifth of the head's time on a CPU)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, side, side)``."""
        height, width = maps.shape[-2:]
        pixels = torch.eye(height * width, dtype=maps.dtype, device=maps.device).view(-1, 1, height, width)
        means = F.adaptive_avg_pool2d(pixels, self.side).flatten(1)  # of each unit pixel (H * W, side * side)
        return (maps.flatten(2) @ means).unflatten(2, (self.side, self.side))


class PooledHead(nn.Module):
    """Each scale is widened by a bottleneck, the finer ones are strided down and added; 1x1 - ReLU, pooling, linear.

    MDEQ takes the mean over the whole map. With batch norms that works; a group norm fixes the mean of each sample's map, which
    leaves the pooled vector hardly anything to say: on MNIST a net with the global mean was right in 14 % after 50 steps, with a
    3x3 grid of means in 84 %, with all of z in 91 %. ``pool`` is the side of that grid (1: MDEQ's), ``outputs`` the width of the
    result: classes, or the numbers of a latent. ``width`` channels are inside a bottleneck, four times as many leave it.
    """

    def __init__(
        self, channels: tuple[int, ...], outputs: int, width: int = 16, features: int = 128, groups: int = 8, pool: int = 4
    ) -> None:
        super().__init__()
        wide = 4 * width
        self.widen = nn.ModuleList(Bottleneck(inputs, width, wide, groups) for inputs in channels)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, wide, 3, stride=2, padding=1, bias=False), group_norm(wide, groups), nn.ReLU())
            for _ in channels[1:]
        )
        # No norm behind this convolution: it would take away what the pooled means say of a sample.
        self.features = nn.Sequential(nn.Conv2d(wide, features, 1), nn.ReLU(), GridMeans(pool), nn.Flatten())
        self.linear = nn.Linear(features * pool**2, outputs)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps ``(B, C_i, H_i, W_i)`` to ``(B, outputs)``."""
        return self.linear(self.pooled(maps))

    def pooled(self, maps: list[Tensor]) -> Tensor:
        """What the last layer sees of the maps, ``(B, features * pool ** 2)``."""
        merged = self.widen[0](maps[0])
        for widen, down, z in zip(self.widen[1:], self.down, maps[1:], strict=True):
            merged = widen(z) + down(merged)
        return self.features(merged)
