"""Limited-memory Broyden for v = F(v), one low-rank inverse Jacobian a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jiio_lightning.core.solvers.anderson import combine, inner_products
from jiio_lightning.core.solvers.base import Method

GUARD = 1e-8  # smallest cosine between s and B y that is trusted


@dataclass(frozen=True)
class _BroydenState:
    """Low-rank form ``B = -I + U W^T`` of the inverse Jacobian of g(v) = F(v) - v."""

    left: Tensor  # U, (B, memory, N)
    right: Tensor  # W, (B, memory, N)
    last_v: Tensor  # previous iterate (B, N)
    last_gap: Tensor  # previous gap (B, N)
    count: int  # updates seen; -1 before the first iterate


class Broyden(Method):
    r"""Broyden's good method on :math:`g(v) = F(v) - v` (Broyden 1965), as DEQs use it.

    .. math::
        v^+ = v - B g, \qquad
        B^+ = B + \frac{(s - B y)\, s^\top B}{s^\top B y}, \qquad B_0 = -I

    with s and y the last differences of v and of g. When the memory is full it starts again from :math:`-I`. An update whose
    denominator is below 1e-8 times its Cauchy bound is left out, for that sample alone.

    Args:
        memory: the most rank-one updates remembered.

    Raises:
        ValueError: for a memory below 1.

    Example:
        >>> from jiio_lightning.core.solvers import FixedPoint
        >>> solver = FixedPoint(Broyden(memory=5), max_steps=30, tol=1e-10)
        >>> solution = solver(torch.cos, torch.ones(1, 1, dtype=torch.float64))
        >>> solution.value.item(), solution.num_steps < 10
        (0.739085, True)
    """

    def __init__(self, memory: int = 20) -> None:
        if memory < 1:
            raise ValueError(f"Broyden needs memory >= 1, got {memory}")
        self.memory = memory

    def init(self, v0: Tensor) -> _BroydenState:
        left = v0.new_zeros(v0.shape[0], self.memory, v0.shape[1])
        return _BroydenState(left, torch.zeros_like(left), v0, v0, -1)

    def step(self, v: Tensor, fv: Tensor, state: _BroydenState) -> tuple[Tensor, _BroydenState]:
        """``v - B g`` after the rank-one update with the last difference."""
        gap = fv - v
        if state.count >= 0:
            self._write(v - state.last_v, gap - state.last_gap, state)
        state = replace(state, last_v=v, last_gap=gap, count=state.count + 1)
        filled = state.count % self.memory or min(state.count, self.memory)  # the ring is emptied when it is full
        return v - self._apply(gap, state.left[:, :filled], state.right[:, :filled]), state

    def _write(self, move: Tensor, turn: Tensor, state: _BroydenState) -> None:
        slot = state.count % self.memory
        left, right = state.left[:, :slot], state.right[:, :slot]
        stretched = self._apply(turn, left, right)  # B y
        row = self._apply(move, right, left)  # B^T s
        denominator = (row * turn).sum(dim=1, keepdim=True)
        bound = torch.linalg.vector_norm(row, dim=1, keepdim=True) * torch.linalg.vector_norm(turn, dim=1, keepdim=True)
        trusted = (denominator.abs() > GUARD * bound) & torch.isfinite(denominator)
        safe = torch.where(trusted, denominator, 1.0)
        state.left[:, slot] = torch.where(trusted, (move - stretched) / safe, 0.0)
        state.right[:, slot] = torch.where(trusted, row, 0.0)

    @staticmethod
    def _apply(vector: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """``(-I + U W^T) vector``."""
        if left.shape[1] == 0:
            return -vector
        return combine(inner_products(right, vector), left) - vector
