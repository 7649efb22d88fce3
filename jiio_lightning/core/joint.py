"""The paper's method: one damped primal-dual step in (z, mu, x) at a time (Eq. 10-11), accelerated as a fixed point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jiio_lightning.core.inner import InnerSolution, InnerSolver, MuResidual, XResidual
from jiio_lightning.core.problem import Evaluation, InnerProblem
from jiio_lightning.core.solvers.base import Image, Method, check_budget, relative, solve
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.solvers.selection import Last, Selection
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.steps import SelfScaled, StepInput, StepRule
from jiio_lightning.core.sweeps import StepSizes, Sweeper, Sweeps


def joint_update(problem: InnerProblem, v: Augmented, alpha: StepSizes, gradient: Augmented, x: Tensor) -> Augmented:
    """One damped primal-dual step, Eq. 11, from dL/dv at v and the rule's proposal for x."""
    return Augmented(
        z=v.z + alpha.z * gradient.mu,  # dL/dmu = f(z, x) - z
        mu=v.mu + alpha.mu * gradient.z,  # dL/dz = J_z^T mu + dl/dz - mu
        x=problem.project(x),  # x - a_x dL/dx for the plain rule, dL/dx = J_x^T mu + dl/dx
    )


class Joint(InnerSolver):
    """The augmented DEQ: z, mu and x solved in one fixed-point iteration, with one evaluation of f
    and h for each step unless ``sweeps`` says otherwise.

    Args:
        step: rule for x; the default scales itself to the problem.
        step_sizes: damping of z and mu.
        method: acceleration of the joint iteration. Mixing across an active projection does harm: keep Picard under a constraint.
        max_steps: joint steps.
        tol: residual at which a sample stops; 0 runs the whole budget without host synchronisation.
        selection: which iterate to return; with a loss gradient that is kept it has to be the last one.
        sweeps: how often a step visits z, mu and the loss for one visit to x; once each unless given.

    Raises:
        ValueError: for a budget that cannot be run, or a tol or a selection beside a loss gradient that is kept: they would judge
            by residuals and costs that are not those of the iterate.
    """

    def __init__(
        self,
        step: StepRule | None = None,
        step_sizes: StepSizes = StepSizes(),
        method: Method | None = None,
        max_steps: int = 40,
        tol: float = 0.0,
        selection: Selection | None = None,
        sweeps: Sweeps = Sweeps(),
    ) -> None:
        check_budget(max_steps, tol)
        if sweeps.loss_every > 1 and (tol > 0 or not isinstance(selection, Last | None)):
            raise ValueError(
                "Joint with a tol or a selection other than Last needs sweeps.loss_every: 1: they judge by the loss's gradient"
            )
        self.step = SelfScaled() if step is None else step
        self.step_sizes = step_sizes
        self.method = Picard() if method is None else method
        self.max_steps = max_steps
        self.tol = tol
        self.selection = Last() if selection is None else selection
        self.sweeps = sweeps

    def __call__(self, problem: InnerProblem, v0: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve from v0; observers see packed iterates."""
        with torch.no_grad():
            v0 = replace(v0.detach(), x=problem.project(v0.x.detach()))
            solution = solve(
                self.method,
                _JointMap(self, problem, v0),
                v0.pack(),
                max_steps=self.max_steps,
                tol=self.tol,
                selection=self.selection,
                project=_project_x(problem, v0.hidden),
                observers=observers,
            )
        return InnerSolution.of(solution, v0.hidden)


class _JointMap:
    """F of Eq. 11 on packed iterates: it carries the state of the rule for x from step to step."""

    def __init__(self, solver: Joint, problem: InnerProblem, v0: Augmented) -> None:
        self.solver = solver
        self.problem = problem
        self.hidden = v0.hidden
        self.look = Sweeper(solver.sweeps, solver.step_sizes, problem, solver.max_steps)
        self.rule_state = solver.step.init(v0.x)
        self.mu_residual = MuResidual()
        self.x_residual = XResidual()
        self.count = 0

    def __call__(self, packed: Tensor) -> Image:
        given = Augmented.unpack(packed, self.hidden)
        v, at = self.look(given, self.count)
        residual = self._residual(v, at)
        inputs = StepInput(v.x, at.gradient.x, at.loss, residual[:, 0], self.count, self.solver.max_steps)
        x, self.rule_state = self.solver.step.step(inputs, self.rule_state)
        self.count += 1
        image = joint_update(self.problem, v, self.solver.step_sizes, at.gradient, x)
        return Image(image.pack(), residual, at.loss, None if v is given else v.pack())

    def _residual(self, v: Augmented, at: Evaluation) -> Tensor:
        """Relative residuals of z, mu and x, ``(B, 3)``."""
        gradient = at.gradient
        z = relative(gradient.mu, v.z + gradient.mu)
        mu = self.mu_residual(v.mu, gradient.z)
        return torch.stack([z, mu, self.x_residual(self.problem, v.x, gradient.x)], dim=1)


def _project_x(problem: InnerProblem, hidden: int) -> Callable[[Tensor], Tensor]:
    """The problem's projection applied to the x-block of a packed iterate."""

    def project(packed: Tensor) -> Tensor:
        v = Augmented.unpack(packed, hidden)
        x = problem.project(v.x)
        return packed if x is v.x else replace(v, x=x).pack()

    return project
