"""The one loop that every batched fixed-point solve runs, and what a method has to define for it: init and step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio_lightning.core.projections import unconstrained
from jiio_lightning.core.solvers.observers import Observer, Snapshot
from jiio_lightning.core.solvers.selection import LowestResidual, Selection


class Method(ABC):
    """How to go from v and F(v), both ``(B, N)``, to the next iterate; it never loops and never looks at other samples.

    A method's state is its own business: the loop only carries it from one step to the next.

    Example:
        >>> class Averaged(Method):
        ...     def init(self, v0):
        ...         return None
        ...     def step(self, v, fv, state):
        ...         return 0.5 * (v + fv), state
        >>> FixedPoint(Averaged(), max_steps=40)(lambda v: 3 - v, torch.zeros(1, 1)).value.item()  # 3 - v does not contract
        1.5
    """

    @abstractmethod
    def init(self, v0: Tensor) -> Any:
        """The state before the first step."""

    @abstractmethod
    def step(self, v: Tensor, fv: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next iterate from v and F(v), and the next state."""


@dataclass(frozen=True)
class Update:
    """One evaluation of the update F at v.

    Example:
        >>> v = torch.tensor([[4.0]])
        >>> Update(value=v / 2, residual=torch.ones(1, 1), cost=torch.zeros(1)).value.item()
        2.0
    """

    value: Tensor  # F(v), (B, N)
    residual: Tensor  # how far v is from its fixed point, one column for each block that has to converge (B, R)
    cost: Tensor  # what is minimised, at v (B,)
    at: Tensor | None = None  # (B, N) where residual and cost were taken, nearer to the fixed point than v; None is v


@dataclass(frozen=True)
class Solution:
    """What every batched fixed-point solve returns.

    Example:
        >>> ones = torch.ones(2, 3)
        >>> solution = Solution(ones, 1e-3 * ones, ones[:, 0], num_steps=9, finite=torch.tensor([True, False]))
        >>> solution.within(1e-2).tolist()
        [True, False]
    """

    value: Tensor  # (B, N) selected iterate
    residuals: Tensor  # (B, R) of each block at value; ||F(v) - v|| / ||F(v)|| in one column for a plain map
    cost: Tensor  # (B,) at value; the residual for a plain map
    num_steps: int  # evaluations of F
    finite: Tensor  # (B,) bool, False where an evaluation was not finite: the best iterate before it is returned

    @property
    def residual(self) -> Tensor:
        """The largest of a sample's residuals ``(B,)``."""
        return self.residuals.amax(dim=1)

    def within(self, tol: float) -> Tensor:
        """``(B,)`` bool: the samples that are finite and whose residual is under tol."""
        return self.finite & (self.residual < tol)


def relative(part: Tensor, whole: Tensor) -> Tensor:
    """||part|| / ||whole|| of each row ``(B,)``; 0 / 0 counts as 0.

    Example:
        >>> relative(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 10.0], [0.0, 0.0]])).tolist()
        [0.5, 0.0]
    """
    tiny = torch.finfo(whole.dtype).tiny
    return torch.linalg.vector_norm(part, dim=1) / torch.linalg.vector_norm(whole, dim=1).clamp_min(tiny)


def plain_map(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Update]:
    """A map without a cost as an update of :func:`solve`: its residual, and its cost, is ||F(v) - v|| / ||F(v)||.

    Example:
        >>> at = plain_map(lambda v: v / 2)(torch.tensor([[4.0]]))
        >>> at.value.item(), at.residual.item()
        (2.0, 1.0)
    """

    def update(v: Tensor) -> Update:
        fv = function(v)
        gap = relative(fv - v, fv)
        return Update(fv, gap.unsqueeze(1), gap)

    return update


def solve(
    method: Method,
    update: Callable[[Tensor], Update],
    v0: Tensor,
    *,
    max_steps: int,
    tol: float = 0.0,
    selection: Selection,
    project: Callable[[Tensor], Tensor] = unconstrained,
    observers: Sequence[Observer] = (),
    independent: bool = True,
) -> Solution:
    """Solve v = F(v) for each row of v0, without a graph.

    A row stops (it keeps its iterate) when its residuals are all below tol or its evaluation is not finite; the loop ends when
    all rows have stopped. With ``tol = 0`` it runs ``max_steps`` evaluations and never waits for the device.

    Args:
        update: F at a ``(B, N)`` iterate; it is called under ``no_grad``.
        v0: start ``(B, N)``.
        selection: which of the evaluated iterates is returned.
        project: applied to every mixed iterate, so that the method's history holds feasible points.
        observers: called with each evaluated iterate.
        independent: whether a row that has stopped keeps its iterate; else it goes on with the others.

    Raises:
        ValueError: if max_steps is below 1 or tol is negative.

    Example:
        >>> from jiio_lightning.core.solvers import Last, Picard
        >>> cosine, v0 = plain_map(torch.cos), torch.ones(1, 1, dtype=torch.float64)
        >>> solution = solve(Picard(), cosine, v0, max_steps=99, tol=1e-5, selection=Last())
        >>> solution.value.item(), solution.num_steps
        (0.7391, 29)
    """
    check_budget(max_steps, tol)
    with torch.no_grad(), torch.autocast(v0.device.type, enabled=False):  # mixing is arithmetic of small differences
        v, best = v0.detach(), None
        state = method.init(v)
        finite = torch.ones(v.shape[0], dtype=torch.bool, device=v.device)
        active = finite
        for step in range(max_steps):
            new = update(v)
            now = Snapshot(step, v if new.at is None else new.at, new.residual, new.cost)
            # A row that has stopped is not judged again: a rule with a state may still move its F(v).
            finite = finite & (now.is_finite() | ~active)
            active = active & finite & (now.worst >= tol)
            best = selection.better(best, now)
            for observer in observers:
                observer(now)
            # bool() waits for the device: only where a tolerance asks for it.
            if step + 1 == max_steps or (tol > 0 and not bool(active.any())):
                break
            proposal, state = method.step(v, new.value, state)
            v = torch.where(active.unsqueeze(1), project(proposal), v) if independent else project(proposal)
    assert best is not None  # max_steps >= 1
    return Solution(best.value, best.residual, best.cost, step + 1, finite)


def check_budget(max_steps: int, tol: float) -> None:
    """Refuse a budget that cannot be run.

    Example:
        >>> check_budget(max_steps=0, tol=0.0)
        Traceback (most recent call last):
        ValueError: a solve needs max_steps >= 1 and tol >= 0, got max_steps=0 and tol=0.0
    """
    if max_steps < 1 or tol < 0:
        raise ValueError(f"a solve needs max_steps >= 1 and tol >= 0, got max_steps={max_steps} and tol={tol}")


class FixedPoint:
    """A method with its budget: solves v = F(v) for a plain map F.

    Args:
        method: Picard, Anderson, Broyden or your own.
        max_steps: evaluations of F.
        tol: relative residual at which a sample stops; 0 runs the whole budget without host synchronisation.
        selection: which iterate to return; the nearest to its fixed point unless given.
        independent: a sample that has stopped keeps its iterate, so that its answer does not depend on the others of its batch.
            False lets it go on with them until the last one is there: nearer to its fixed point for the same time.

    Raises:
        ValueError: for a budget that cannot be run.

    Example:
        >>> from jiio_lightning.core.solvers import Picard
        >>> solution = FixedPoint(Picard(), max_steps=20)(lambda v: v / 2 + 1, torch.zeros(3, 1))
        >>> solution.value.flatten().tolist(), solution.within(1e-4).tolist()
        ([2.0, 2.0, 2.0], [True, True, True])
    """

    def __init__(
        self,
        method: Method,
        max_steps: int = 20,
        tol: float = 0.0,
        selection: Selection | None = None,
        independent: bool = True,
    ) -> None:
        check_budget(max_steps, tol)
        self.method = method
        self.max_steps = max_steps
        self.tol = tol
        self.selection = LowestResidual() if selection is None else selection
        self.independent = independent

    def __call__(self, function: Callable[[Tensor], Tensor], v0: Tensor) -> Solution:
        """Solve from v0 ``(B, N)``."""
        return solve(
            self.method,
            plain_map(function),
            v0,
            max_steps=self.max_steps,
            tol=self.tol,
            selection=self.selection,
            independent=self.independent,
        )
