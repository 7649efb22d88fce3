"""The paper's baseline: gradient steps in x, each with a full solve of z and of the adjoint mu (Eq. 6-7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Linearisation, adjoint
from jiio_lightning.core.inner import InnerSolution, InnerSolver, XResidual
from jiio_lightning.core.problem import InnerProblem, loss_gradient
from jiio_lightning.core.solvers.base import FixedPoint, Solution, check_budget, relative
from jiio_lightning.core.solvers.observers import Observer, Snapshot
from jiio_lightning.core.solvers.selection import LowestCost, Selection
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.steps import StepRule


class Nested(InnerSolver):
    r"""Projected descent on :math:`\ell(z^*(x), x)` with a solve of Eq. 3 and one of Eq. 9 for each step in x.

    With ``step: Adam`` it is the baseline of Tables 3 and 7; with ``step: Normalised`` and a ball it is PGD (Table 2).

    Args:
        step: rule for x.
        forward: method and budget for z (Table 9: 18 steps).
        backward: method and budget for mu (Table 9: 20 steps).
        max_steps: steps in x.
        warm: start each solve from the previous one's z and mu; the paper's baseline starts from v0 (cold).
        selection: which iterate to return; the cheapest unless given.

    Raises:
        ValueError: for a budget that cannot be run.

    Example:
        >>> from jiio_lightning.core.solvers import Anderson
        >>> from jiio_lightning.core.steps import Plain
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> solver = FixedPoint(Anderson(memory=2), max_steps=5)
        >>> v0 = Augmented.start(torch.zeros(1, 1, dtype=torch.float64), hidden=1)
        >>> Nested(Plain(0.1), solver, solver, max_steps=40)(problem, v0).v.pack().tolist()
        [[4.000, -2.000, 2.000]]
    """

    def __init__(
        self,
        step: StepRule,
        forward: FixedPoint,
        backward: FixedPoint,
        max_steps: int = 40,
        warm: bool = False,
        selection: Selection | None = None,
    ) -> None:
        check_budget(max_steps, 0.0)
        self.step = step
        self.forward = forward
        self.backward = backward
        self.max_steps = max_steps
        self.warm = warm
        self.selection = LowestCost() if selection is None else selection

    def __call__(self, problem: InnerProblem, v0: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve from v0; observers see one packed iterate for each step in x."""
        with torch.no_grad():
            v0 = problem.enter(v0)
            v, best = v0, None
            rule_state, measure = self.step.init(v0.x), XResidual()
            finite = torch.ones(v0.x.shape[0], dtype=torch.bool, device=v0.x.device)
            for step in range(self.max_steps):
                v, dx, cost, residuals = self._evaluate(problem, v, measure)
                now = Snapshot(step, v.pack(), residuals, cost)
                finite = finite & now.is_finite()
                best = self.selection.better(best, now)
                for observer in observers:
                    observer(now)
                move, rule_state = self.step.move(dx, rule_state, step, self.max_steps)
                # A sample that failed stays where it is, so that the solves of later steps see no NaN from x.
                x = torch.where(finite.unsqueeze(1), problem.project(v.x + move), v.x)
                v = replace(v if self.warm else v0, x=x)
        assert best is not None  # max_steps >= 1
        return InnerSolution.of(Solution(best.value, best.residual, best.cost, self.max_steps, finite), v0.hidden)

    def _evaluate(self, problem: InnerProblem, start: Augmented, measure: XResidual) -> tuple[Augmented, Tensor, Tensor, Tensor]:
        """z and mu solved at start's x; the gradient in x ``(B, d)``, the cost ``(B,)`` and the three residuals ``(B, 3)``."""
        z = self.forward(lambda z: problem.f(z, start.x), start.z).value
        at = Linearisation(problem.f, z, start.x)
        inner = loss_gradient(problem.loss, replace(start, z=z))
        solution = adjoint(at, inner.gradient.z, self.backward, mu0=start.mu)
        dx = inner.gradient.x + at.pull_x(solution.value)
        gaps = relative(at.value - z, at.value), solution.residual, measure(problem, start.x, dx)
        return Augmented(z, solution.value, start.x), dx, inner.loss, torch.stack(gaps, dim=1)
