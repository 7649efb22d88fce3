"""Coordinates of the points of a grid."""

from __future__ import annotations

import torch
from torch import Tensor


def grid(shape: tuple[int, ...]) -> Tensor:
    """Coordinates ``(N, d)`` of a grid's cell centres, each axis over [-1, 1]: the same places at every resolution.

    Example:
        >>> grid((2, 4))[:2].tolist()
        [[-0.5, -0.75], [-0.5, -0.25]]
    """
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).float()
