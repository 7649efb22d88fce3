"""How a joint solve reaches a tolerance in x too: Anderson for z and mu, and a quasi-Newton step of x wherever they follow it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jiio_lightning.core.inner import MuResidual, XResidual, residuals
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.projections import unconstrained
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import Update
from jiio_lightning.core.state import Augmented

SHARE = 0.13
"""How exact dL/dx is to be before x moves, by the residuals of z and mu: this much of G over the largest dL/dx so far."""

CUTS = 4
"""How often in a row a move is cut back for its slope; then it stands. At a kink of L (ReLU) the slope never turns gently."""


class Descent:
    r"""F of Eq. 11 for a solve to a tolerance, without a step size: one evaluation of f and of the loss a step.

    z and mu take undamped steps, mixed by Anderson. x waits until they have followed it (``SHARE``), and then moves:

    .. math:: x^+ = P(x - B G), \qquad G = (x - P(x - a \, \partial_x L)) / a

    B is the limited-memory BFGS inverse (Nocedal 1980) of the last moves between such points; a, from the first gradient, makes
    the first step that of :class:`~jiio_lightning.core.steps.SelfScaled`. The moves are those of the whole v, so that z and mu go
    along with x as they did before. A move that raised L, or along which its slope now climbs more than it fell, is cut back.

    Each sample decides for itself. ``tol`` is the residual aimed at; ``memory`` counts what Anderson and BFGS remember, each.

    Example:
        >>> from jiio_lightning.core.solvers import Last, Picard, solve
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> v0 = Augmented.start(torch.zeros(1, 1, dtype=torch.float64), hidden=1)
        >>> update = Descent(problem, v0, tol=1e-10)
        >>> solve(Picard(), update, v0.pack(), max_steps=99, tol=1e-10, selection=Last()).value.tolist()
        [[4.000, -2.000, 2.000]]
    """

    def __init__(self, problem: InnerProblem, v0: Augmented, tol: float, memory: int = 10) -> None:
        self.problem = problem
        self.hidden = v0.hidden
        self.tol = tol
        self.mixing = Anderson(type=1, memory=memory, ridge=100 * torch.finfo(v0.x.dtype).eps)
        self.mixed = self.mixing.init(v0.pack()[:, : 2 * v0.hidden])
        packed = v0.pack()
        self.measures = MuResidual(), XResidual.at(problem, v0)
        self.anchor = _Point(packed, torch.zeros_like(v0.x), torch.zeros_like(packed[:, :1]))  # where x last moved from
        self.scale = torch.zeros_like(packed[:, :1])  # a; 0 until x has moved
        self.stretch, self.cuts = torch.ones_like(self.scale), torch.zeros_like(self.scale)
        self.secants = _Secants(v0, memory)
        self.length = torch.zeros_like(self.scale)  # the largest dL/dx where x has moved
        self.jumped = torch.ones_like(self.scale, dtype=torch.bool)

    def __call__(self, packed: Tensor) -> Update:
        v = Augmented.unpack(packed, self.hidden)
        at, unit = self.problem.evaluate(v), self.measures[1].largest
        residual = residuals(self.problem, v, at.gradient, *self.measures)
        z, mu, x = residual.split(1, dim=1)
        slope = self._projected(v.x, at.gradient.x)
        length = _norm(at.gradient.x)
        moved = self.scale > 0
        # By the smaller of the gradients here and where x came from: one that z and mu have spoilt is too large.
        least = torch.where(moved, torch.minimum(_norm(slope), _norm(self.anchor.gradient)), _norm(slope))
        share = SHARE * least / torch.maximum(self.length, length)
        surplus = _dot(v.mu, at.gradient.mu)  # L - l, and all that l may be off by
        cost, doubt = at.loss.unsqueeze(1) + surplus, surplus.abs()
        # Above where x came from nothing has converged, however flat L is there.
        rose = moved & (cost - doubt - self.anchor.cost > 100 * torch.finfo(x.dtype).eps * self.anchor.cost.abs())
        ready = (torch.maximum(z, mu) < share.clamp_min(0.5 * self.tol)) & (rose | (x >= 0.5 * self.tol))
        residual = torch.cat([z, mu, torch.where(rose, 1.0, x)], dim=1)
        # The unit of x's residual is dL/dx where x moved: that of a young mu may be a thousand times as large.
        self.measures[1].largest = torch.where(ready.squeeze(1), self.measures[1].largest, unit)
        self.length = torch.where(ready, torch.maximum(self.length, length), self.length)
        inner = self._mix(packed[:, : 2 * self.hidden], torch.cat([at.gradient.mu, at.gradient.z], dim=1))
        move = torch.where(ready, self._move(packed, v.x, at.gradient.x, slope, cost + doubt, rose, ready), 0.0)
        # What Anderson learns from the next gap would be the move's doing, not that of z and mu.
        self.jumped = ready
        return Update(torch.cat([inner, v.x], dim=1) + move, residual, at.loss)

    def _mix(self, inner: Tensor, gap: Tensor) -> Tensor:
        """The next (z, mu), ``(B, 2 n)``, at the x of now."""
        last_v = torch.where(self.jumped, inner, self.mixed.last_v)
        self.mixed = replace(self.mixed, last_v=last_v, last_gap=torch.where(self.jumped, gap, self.mixed.last_gap))
        inner, self.mixed = self.mixing.step(inner, inner + gap, self.mixed)
        return inner

    def _move(self, packed: Tensor, x: Tensor, dx: Tensor, slope: Tensor, cost: Tensor, rose: Tensor, ready: Tensor) -> Tensor:
        """By how much v moves ``(B, 2 n + d)`` where it is ready; the cost is L at most ``(B, 1)``."""
        eps = torch.finfo(x.dtype).eps
        first = ready & (self.scale == 0)
        unit = x.shape[1] ** 0.5 / _norm(dx).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
        self.scale = torch.where(first, unit, self.scale)
        now = _Point(packed, torch.where(first, self._projected(x, dx), slope), cost)
        move, turn = packed - self.anchor.packed, now.gradient - self.anchor.gradient
        along = move[:, 2 * self.hidden :]
        before, after = _dot(self.anchor.gradient, along), _dot(now.gradient, along)
        known = ready & ~first
        bent = known & (after - before > eps * _norm(along) * _norm(turn))
        self.secants.push(move, turn, bent)
        too_far = known & (before < 0) & (rose | ((after > -before) & (self.cuts < CUTS)))
        self.cuts = torch.where(too_far, self.cuts + 1, torch.where(ready, 0, self.cuts))
        root = torch.where(after > before, before / (before - after), 0.5).clamp(0.1, 0.5)  # of the slope, from the anchor
        # Where the loss bends down along a move BFGS learns nothing: go further next time.
        self.stretch = torch.where(bent, 1.0, torch.where(known & ~too_far, 2 * self.stretch, self.stretch))
        self.anchor = self.anchor.replaced(now, ready & ~too_far)
        return torch.where(too_far, (root - 1) * move, -self.stretch * self.secants.step(self.anchor.gradient, self.scale))

    def _projected(self, x: Tensor, dx: Tensor) -> Tensor:
        """G ``(B, d)``."""
        if self.problem.project is unconstrained:  # the same, but for rounding
            return dx
        scale = torch.where(self.scale > 0, self.scale, 1.0)
        return (x - self.problem.project(x - scale * dx)) / scale


@dataclass(frozen=True)
class _Point:
    """Where x may move from."""

    packed: Tensor  # v, (B, 2 n + d)
    gradient: Tensor  # G, (B, d)
    cost: Tensor  # L, (B, 1)

    def replaced(self, now: _Point, where: Tensor) -> _Point:
        """``now`` in some rows ``(B, 1)``."""
        return _Point(*(torch.where(where, new, old) for new, old in zip(vars(now).values(), vars(self).values(), strict=True)))


class _Secants:
    """Limited-memory BFGS for G, a batch at a time, by the two-loop recursion; rows of zeros are pairs that are not there yet."""

    def __init__(self, v0: Augmented, memory: int) -> None:
        self.width = v0.x.shape[1]
        packed = v0.pack()
        self.moves = packed.new_zeros(memory, *packed.shape)  # of v
        self.turns = packed.new_zeros(memory, *v0.x.shape)  # of G
        self.weights = packed.new_zeros(memory, len(packed), 1)  # 1 / (move of x . turn)

    def push(self, move: Tensor, turn: Tensor, where: Tensor) -> None:
        """Remember a pair in the rows ``where`` ``(B, 1)``, in place of the oldest."""
        weight = 1 / torch.where(where, _dot(move[:, -self.width :], turn), 1.0)
        for name, new in {"moves": move, "turns": turn, "weights": weight}.items():
            old = getattr(self, name)
            setattr(self, name, torch.where(where, torch.cat([old[1:], new.unsqueeze(0)]), old))

    def step(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """``B G`` for x and what z and mu have to do with it, ``(B, 2 n + d)``; the scale is that of B without a pair."""
        pairs, used = list(zip(self.moves, self.turns, self.weights, strict=True)), []
        for move, turn, weight in reversed(pairs):
            used.append(weight * _dot(move[:, -self.width :], gradient))
            gradient = gradient - used[-1] * turn
        move, turn, weight = pairs[-1]
        scale = torch.where(weight > 0, 1 / (weight * _dot(turn, turn)).clamp_min(torch.finfo(scale.dtype).tiny), scale)
        step = torch.cat([torch.zeros_like(move[:, : -self.width]), scale * gradient], dim=1)
        for (move, turn, weight), before in zip(pairs, reversed(used), strict=True):
            step = step + move * (before - weight * _dot(turn, step[:, -self.width :]))
        return step


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _norm(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a, dim=1, keepdim=True)
