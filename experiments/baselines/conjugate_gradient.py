"""Conjugate gradients for a batch of independent symmetric systems that are known only by their products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jiio_lightning.core.gmres import LinearSolution


def conjugate_gradient(product: Callable[[Tensor], Tensor], rhs: Tensor, *, max_steps: int) -> LinearSolution:
    """Conjugate gradients from u = 0 (Hestenes & Stiefel 1952), each row of rhs a system of its own.

    A row ends for good where A has no positive curvature in its direction; it keeps what it has.

    Args:
        product: ``A u`` for each row, ``(B, N) -> (B, N)``, A symmetric.
        rhs: b ``(B, N)``.
        max_steps: products with A; there is no test of convergence, which the host would have to wait for.

    Example:
        >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> conjugate_gradient(lambda u: u @ matrix, torch.tensor([[4.0, 7.0]]), max_steps=2).value.tolist()
        [[1.0, 2.0]]
    """
    tiny = torch.finfo(rhs.dtype).tiny
    value, residual, direction = torch.zeros_like(rhs), rhs, rhs
    squared, going = _dot(residual, residual), torch.ones_like(rhs[:, :1], dtype=torch.bool)
    for _ in range(max_steps):
        new = product(direction)
        curvature = _dot(direction, new)
        going = going & (curvature > 0)
        length = torch.where(going, squared / curvature.clamp_min(tiny), 0.0)
        value = value + length * direction
        residual = residual - length * new
        before, squared = squared, _dot(residual, residual)
        direction = residual + squared / before.clamp_min(tiny) * direction
    relative = residual.norm(dim=1) / rhs.norm(dim=1).clamp_min(tiny)
    return LinearSolution(value, relative, max_steps)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)
