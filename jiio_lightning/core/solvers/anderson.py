"""Anderson acceleration, types I and II, with one small Gram matrix a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor

from jiio_lightning.core.solvers.base import Method


@dataclass(frozen=True)
class _MixingState:
    """Ring buffers of differences, and inner products of all pairs of them."""

    moves: Tensor  # S, differences v_i - v_(i-1) of iterates (B, memory, N); of type II S + beta Y, which it only takes together
    turns: Tensor  # Y, differences g_i - g_(i-1) of gaps g = F(v) - v (B, memory, N)
    gram: Tensor  # L^T Y for each sample (B, memory, memory), with L = S (type I) or Y (type II)
    left_norm: Tensor  # norms of L's columns (B, memory)
    turn_norm: Tensor  # norms of Y's columns (B, memory)
    last_v: Tensor  # previous iterate (B, N)
    last_gap: Tensor  # previous gap (B, N)
    count: int  # differences seen; an int, so that slices have a static size


class Anderson(Method):
    r"""Anderson mixing (Walker & Ni 2011; type I as in Fang & Saad 2009).

    With :math:`S` and :math:`Y` the last differences of iterates and of gaps :math:`g = F(v) - v`, and :math:`L = S` (type I)
    or :math:`L = Y` (type II),

    .. math:: v^+ = v + \beta g - (S + \beta Y) \gamma, \qquad (L^\top Y \mp \rho) \gamma = L^\top g

    solved with columns scaled to unit length, so that :math:`\rho` is ``ridge`` relative to their norms. A sample whose small
    system has no finite solution takes the plain step; the others do not notice.

    Args:
        type: 1 or 2.
        memory: the most differences remembered.
        ridge: relative to the norms of the differences.
        beta: mixing; 1 uses F(v) as it is.
        history_dtype: precision of the two buffers; the iterate's unless given.

    Raises:
        ValueError: for another type, a memory below 1 or a negative ridge.

    Example:
        >>> from jiio_lightning.core.solvers import FixedPoint
        >>> solver = FixedPoint(Anderson(type=2, memory=3), max_steps=30, tol=1e-10)
        >>> solution = solver(torch.cos, torch.ones(1, 1, dtype=torch.float64))
        >>> solution.value.item(), solution.num_steps < 10
        (0.739085, True)
    """

    def __init__(
        self,
        type: Literal[1, 2] = 2,
        memory: int = 10,
        ridge: float = 1e-6,
        beta: PositiveFloat = 1.0,
        history_dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    ) -> None:
        if type not in (1, 2) or memory < 1 or ridge < 0:
            raise ValueError(f"Anderson needs type 1 or 2, memory >= 1 and ridge >= 0, got {type}, {memory} and {ridge}")
        self.type = type
        self.memory = memory
        self.ridge = ridge
        self.beta = beta
        self.history_dtype = history_dtype

    def init(self, v0: Tensor) -> _MixingState:
        """Empty buffers, allocated once a solve; count -1 says that there is no previous iterate either."""
        dtype = v0.dtype if self.history_dtype is None else getattr(torch, self.history_dtype)
        batch, width = v0.shape
        moves = torch.zeros(batch, self.memory, width, dtype=dtype, device=v0.device)
        norm = v0.new_zeros(batch, self.memory)
        gram = v0.new_zeros(batch, self.memory, self.memory)
        return _MixingState(moves, torch.zeros_like(moves), gram, norm, norm.clone(), v0, v0, -1)

    def step(self, v: Tensor, fv: Tensor, state: _MixingState) -> tuple[Tensor, _MixingState]:
        """``v + beta g - (S + beta Y) gamma``; the first step has no differences and is the plain one."""
        gap = fv - v
        plain = fv if self.beta == 1.0 else v + self.beta * gap
        state = self.push(v, gap, state)
        filled = min(state.count, self.memory)
        if filled == 0:
            return plain, state
        moves, turns = state.moves[:, :filled], state.turns[:, :filled]
        left_gap = inner_products(moves if self.type == 1 else turns, gap)
        gamma = self.coefficients(state, left_gap, filled)
        mixed = plain - combine(gamma, moves)
        return (mixed - self.beta * combine(gamma, turns) if self.type == 1 else mixed), state

    def push(self, v: Tensor, gap: Tensor, state: _MixingState) -> _MixingState:
        """Write one slot of each buffer in place and refresh that row and column of the Gram matrix."""
        if state.count >= 0:
            self._write(v - state.last_v, gap - state.last_gap, state)
        return replace(state, last_v=v, last_gap=gap, count=state.count + 1)

    def _write(self, move: Tensor, turn: Tensor, state: _MixingState) -> None:
        slot, filled = state.count % self.memory, min(state.count + 1, self.memory)
        left = move if self.type == 1 else turn
        state.moves[:, slot], state.turns[:, slot] = (move if self.type == 1 else move.add(turn, alpha=self.beta)), turn
        state.turn_norm[:, slot] = torch.linalg.vector_norm(turn, dim=1)
        state.left_norm[:, slot] = torch.linalg.vector_norm(move, dim=1) if self.type == 1 else state.turn_norm[:, slot]
        row = inner_products(state.turns[:, :filled], left)
        state.gram[:, slot, :filled] = row
        state.gram[:, :filled, slot] = row if self.type == 2 else inner_products(state.moves[:, :filled], turn)

    def coefficients(self, state: _MixingState, left_gap: Tensor, filled: int) -> Tensor:
        """gamma ``(B, filled)``, zero in the rows whose system has no finite solution."""
        given, left_gap = left_gap.dtype, left_gap.to(torch.promote_types(left_gap.dtype, torch.float32))  # solve_ex has no less
        tiny = torch.finfo(given).tiny
        left_norm = state.left_norm[:, :filled].clamp_min(tiny)
        turn_norm = state.turn_norm[:, :filled].clamp_min(tiny)
        scaled = state.gram[:, :filled, :filled].to(left_gap.dtype) / left_norm.unsqueeze(2) / turn_norm.unsqueeze(1)
        # Its sign is that of the matrix near a stable fixed point: S^T Y is negative there, Y^T Y positive.
        ridge = self.ridge * (-1 if self.type == 1 else 1)
        scaled.diagonal(dim1=1, dim2=2).add_(ridge)
        # solve() would raise for the whole batch where the system of one sample is singular.
        gamma, _ = torch.linalg.solve_ex(scaled, left_gap / left_norm)
        gamma = gamma / turn_norm
        return torch.where(gamma.abs().amax(dim=1, keepdim=True) < torch.inf, gamma, 0.0).to(given)


def inner_products(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products of rows ``(B, m, N)`` with a vector ``(B, N)``, accumulated in the vector's precision: ``(B, m)``.

    Example:
        >>> inner_products(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 5.0]]
    """
    if rows.dtype == vector.dtype:
        # In this order a CPU takes half the time, and a fifth of it for small vectors.
        return torch.bmm(vector.unsqueeze(1), rows.transpose(1, 2)).squeeze(1)
    # Row by row: a copy of the whole buffer in full precision is what a low-precision history is there to avoid.
    return torch.stack([(row.to(vector.dtype) * vector).sum(dim=1) for row in rows.unbind(1)], dim=1)


def combine(weights: Tensor, rows: Tensor) -> Tensor:
    """``sum_i weights_i rows_i`` of weights ``(B, m)`` and rows ``(B, m, N)``, in the weights' precision: ``(B, N)``.

    Example:
        >>> combine(torch.tensor([[2.0, 3.0]]), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])).tolist()
        [[5.0, 3.0]]
    """
    if rows.dtype == weights.dtype:
        # What a small solve returns is transposed in memory, and bmm would go through the batch one by one.
        return torch.bmm(weights.contiguous().unsqueeze(1), rows).squeeze(1)
    total = weights.new_zeros(rows.shape[0], rows.shape[2])
    for weight, row in zip(weights.unbind(1), rows.unbind(1), strict=True):
        total.addcmul_(weight.unsqueeze(1), row.to(weights.dtype))
    return total
