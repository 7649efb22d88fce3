"""The paper's method: one damped primal-dual step in (z, mu, x) at a time (Eq. 10-11), accelerated as a fixed point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jiio_lightning.core.inner import InnerSolution, InnerSolver, MuResidual, XResidual
from jiio_lightning.core.problem import Evaluation, InnerProblem
from jiio_lightning.core.solvers.base import Method, Update, check_budget, relative, solve
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.solvers.selection import Last, Selection
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.steps import SelfScaled, StepRule
from jiio_lightning.core.sweeps import StepSizes, Sweeper, Sweeps


def joint_update(problem: InnerProblem, v: Augmented, alpha: StepSizes, gradient: Augmented, move: Tensor) -> Augmented:
    """One damped primal-dual step, Eq. 11, from dL/dv at v and the step rule's move of x ``(B, d)``.

    Example:
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * (z - 5).square().sum(1))
        >>> v, alpha = Augmented.start(torch.ones(1, 1), hidden=1), StepSizes(z=0.8, mu=0.6)
        >>> gradient = problem.gradients(v)
        >>> joint_update(problem, v, alpha, gradient, move=-0.1 * gradient.x).pack().tolist()
        [[0.8, -3.0, 1.0]]
    """
    return Augmented(
        z=v.z + alpha.z * gradient.mu,  # dL/dmu = f(z, x) - z
        mu=v.mu + alpha.mu * gradient.z,  # dL/dz = J_z^T mu + dl/dz - mu
        x=problem.project(v.x + move),  # Plain moves by -a_x dL/dx, dL/dx = J_x^T mu + dl/dx
    )


class Joint(InnerSolver):
    """The augmented DEQ: z, mu and x solved in one fixed-point iteration.

    A step takes one evaluation of f and h and one backward pass, unless ``sweeps`` says otherwise.

    Args:
        step: rule for x; the default scales itself to the problem.
        step_sizes: damping of z and mu.
        method: acceleration of the joint iteration. Mixing across an active projection does harm: keep Picard under a constraint.
        max_steps: joint steps.
        tol: residual at which a sample stops; 0 runs the whole budget without host synchronisation.
        selection: which iterate to return; the last unless given. With a cached loss gradient it has to be the last.
        sweeps: inner iterations of z and mu, and of the loss's gradient, for each step in x; one each unless given.

    Raises:
        ValueError: for a budget that cannot be run, or a tol or a selection together with ``sweeps.loss_every > 1``: residuals
            and costs from a cached gradient are not those of the iterate.

    Example:
        The optimum of this problem is z = 4, mu = -2, x = 2.

        >>> from jiio_lightning.core.solvers import Anderson
        >>> from jiio_lightning.core.steps import Plain
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> v0 = Augmented.start(torch.zeros(1, 1, dtype=torch.float64), hidden=1)
        >>> Joint(Plain(0.05), max_steps=200)(problem, v0).v.pack().tolist()
        [[4.000, -2.000, 2.000]]
        >>> solution = Joint(Plain(0.05), method=Anderson(memory=3), max_steps=200, tol=1e-8)(problem, v0)
        >>> solution.num_steps < 30, solution.feasible(1e-8).tolist()
        (True, [True])
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
            # A method's history holds projected iterates, from the first one on.
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
    """F of Eq. 11 on packed iterates. It carries from step to step what a rule, the sweeps and the residuals remember."""

    def __init__(self, solver: Joint, problem: InnerProblem, v0: Augmented) -> None:
        self.solver = solver
        self.problem = problem
        self.hidden = v0.hidden
        self.sweep = Sweeper(solver.sweeps, solver.step_sizes, problem, solver.max_steps)
        self.rule_state = solver.step.init(v0.x)
        self.mu_residual = MuResidual()
        self.x_residual = XResidual()
        self.count = 0

    def __call__(self, packed: Tensor) -> Update:
        given = Augmented.unpack(packed, self.hidden)
        v, at = self.sweep(given, self.count)
        residual = self._residual(v, at)
        move, self.rule_state = self.solver.step.move(at.gradient.x, self.rule_state, self.count, self.solver.max_steps)
        self.count += 1
        new = joint_update(self.problem, v, self.solver.step_sizes, at.gradient, move)
        # Without inner iterations residual and cost are those of the given iterate: nothing to pack a second time.
        return Update(new.pack(), residual, at.loss, None if v is given else v.pack())

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
        x = problem.project(v.x)  # x itself where there is no constraint: nothing to copy
        return packed if x is v.x else replace(v, x=x).pack()

    return project
