"""The paper's method: one damped primal-dual step in (z, mu, x) at a time (Eq. 10-11), accelerated as a fixed point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from jiio_lightning.core.descent import Descent
from jiio_lightning.core.inner import InnerSolution, InnerSolver, MuResidual, XResidual, residuals
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.base import Method, Update, check_budget, solve
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.solvers.selection import Last, LowestResidual, Selection
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

    By default it runs a budget of 40 steps without a test: z and mu settle because x slows down, and x stops where the budget
    ends, at its optimum or not. Training needs no more, and ``require()`` promises nothing of x: on the linear-quadratic problem
    of the tests (n = 12, d = 5) x is off by 26 to 58 % in the median, by seed, and by 2 to 12 % after 200 steps.

    With a ``tol`` and no ``step``, z, mu and x of each sample are solved to it by
    :class:`~jiio_lightning.core.descent.Descent`, and ``require()`` raises where one is not: there 78 to 92 steps to 1e-10, and x
    within 1e-9. A smooth f and loss have such a point. In a network of ReLUs the optimum lies on kinks, where dL/dx jumps and is
    never 0: x comes near it, and is reported as not converged (results/training.md).

    Args:
        step: rule for x; the default scales itself to the problem. A rule with a tol keeps its own schedule: x may not reach it.
        step_sizes: damping of z and mu.
        method: acceleration of the joint iteration. Mixing across an active projection does harm: keep Picard under a constraint.
        max_steps: joint steps; 40 unless given, 1000 with a tol.
        tol: residual of z, mu and x at which a sample stops; 0 runs the whole budget without host synchronisation.
        selection: which iterate to return; the last unless given, or with a tol and no
            step the nearest. With a cached loss gradient it has to be the last.
        sweeps: inner iterations of z and mu, and of the loss's gradient, for each step in x; one each unless given.

    Raises:
        ValueError: for a budget that cannot be run, or a tol or a selection together with ``sweeps.loss_every > 1``: residuals
            and costs from a cached gradient are not those of the iterate. And for a tol without a step but with a method, step
            sizes or sweeps, which then have no use.

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
        >>> solution = Joint(tol=1e-10)(problem, v0).require()
        >>> solution.num_steps < 30, solution.converged.tolist()
        (True, [True])
        >>> solution = Joint(Plain(0.05), method=Anderson(memory=3), max_steps=200, tol=1e-8)(problem, v0)
        >>> solution.num_steps < 30, solution.converged.tolist()
        (True, [True])
    """

    def __init__(
        self,
        step: StepRule | None = None,
        step_sizes: StepSizes = StepSizes(),
        method: Method | None = None,
        max_steps: int | None = None,
        tol: float = 0.0,
        selection: Selection | None = None,
        sweeps: Sweeps = Sweeps(),
    ) -> None:
        max_steps = (1000 if tol > 0 else 40) if max_steps is None else max_steps
        check_budget(max_steps, tol)
        if sweeps.loss_every > 1 and (tol > 0 or not isinstance(selection, Last | None)):
            raise ValueError(
                "Joint with a tol or a selection other than Last needs sweeps.loss_every: 1: they judge by the loss's gradient"
            )
        descends = tol > 0 and step is None
        if descends and (method is not None or step_sizes != StepSizes() or sweeps != Sweeps()):
            raise ValueError(
                "Joint with a tol and no step takes its own steps: leave method, step_sizes and sweeps out, or give a step"
            )
        self.step = SelfScaled() if step is None and not descends else step  # None: Descent
        self.step_sizes = step_sizes
        self.method = Picard() if method is None else method
        self.max_steps = max_steps
        self.tol = tol
        # A sample that has not converged may be on its way to a new x: its best iterate is nearer than its last.
        judge = LowestResidual() if descends else Last()
        self.selection = judge if selection is None else selection
        self.sweeps = sweeps
        self.capturable = tol == 0

    def __call__(self, problem: InnerProblem, v0: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve from v0; observers see packed iterates."""
        with torch.no_grad():
            # A method's history holds projected iterates, from the first one on.
            v0 = problem.enter(v0)
            update = Descent(problem, v0, self.tol) if self.step is None else _JointMap(self, problem, v0, self.step)
            solution = solve(
                self.method,
                update,
                v0.pack(),
                max_steps=self.max_steps,
                tol=self.tol,
                selection=self.selection,
                project=_project_x(problem, v0.hidden),
                observers=observers,
            )
        return InnerSolution.of(solution, v0.hidden, self.tol)


class _JointMap:
    """F of Eq. 11 on packed iterates. It carries from step to step what a rule, the sweeps and the residuals remember."""

    def __init__(self, solver: Joint, problem: InnerProblem, v0: Augmented, step: StepRule) -> None:
        self.solver = solver
        self.problem = problem
        self.hidden = v0.hidden
        self.sweep = Sweeper(solver.sweeps, solver.step_sizes, problem, solver.max_steps)
        self.step = step
        self.rule_state = step.init(v0.x)
        self.measures = MuResidual(), XResidual.at(problem, v0) if solver.tol > 0 else XResidual()
        self.count = 0

    def __call__(self, packed: Tensor) -> Update:
        given = Augmented.unpack(packed, self.hidden)
        v, at = self.sweep(given, self.count)
        residual = residuals(self.problem, v, at.gradient, *self.measures)
        move, self.rule_state = self.step.move(at.gradient.x, self.rule_state, self.count, self.solver.max_steps)
        self.count += 1
        new = joint_update(self.problem, v, self.solver.step_sizes, at.gradient, move)
        # Without inner iterations residual and cost are those of the given iterate: nothing to pack a second time.
        return Update(new.pack(), residual, at.loss, None if v is given else v.pack())


def _project_x(problem: InnerProblem, hidden: int) -> Callable[[Tensor], Tensor]:
    """The problem's projection applied to the x-block of a packed iterate."""

    def project(packed: Tensor) -> Tensor:
        v = Augmented.unpack(packed, hidden)
        x = problem.project(v.x)  # x itself where there is no constraint: nothing to copy
        return packed if x is v.x else replace(v, x=x).pack()

    return project
