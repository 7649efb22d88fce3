"""What every inner solver takes and returns, and what it says when its answer cannot be used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Linearisation
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.base import Solution, relative
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.state import Augmented

RESIDUALS = ("z", "mu", "x")
"""Columns of the residual of an inner solve."""

MU_SLACK = 10.0
"""How much larger than z's the residual of mu may be: mu is linear and steers a gradient, z is the answer."""


class XResidual:
    """||x - P(x - dL/dx)|| over the largest one that this solve has seen: a residual of x without units.

    The gradient in x has no natural scale to be compared with. The largest so far is a scale that neither the units of x nor a
    factor on the loss can change. A solve that starts at its solution has nothing to compare with: where x is judged,
    :meth:`at` gives a scale to begin with; without one the first residual is 1.

    Example:
        >>> problem, residual = InnerProblem(f=lambda z, x: z, loss=lambda z, x: x.sum(1)), XResidual()
        >>> x = torch.zeros(1, 2)
        >>> [residual(problem, x, torch.tensor([[dx, 0.0]])).item() for dx in (8.0, 2.0, 1.0)]
        [1.0, 0.25, 0.125]
    """

    def __init__(self, largest: Tensor | None = None) -> None:
        self.largest = torch.zeros(()) if largest is None else largest

    @classmethod
    def at(cls, problem: InnerProblem, v: Augmented) -> XResidual:
        """With the scale of v: the gradient in x that a mu of the same length but other signs would give; one evaluation of f."""
        if not bool(v.mu.any()):
            return cls()
        signs = torch.randint(2, (v.hidden,), generator=torch.Generator().manual_seed(0)).to(v.mu) * 2 - 1
        return cls(torch.linalg.vector_norm(Linearisation(problem.f, v.z, v.x).pull_x(signs * v.mu), dim=1))

    def __call__(self, problem: InnerProblem, x: Tensor, dx: Tensor) -> Tensor:
        """``(B,)`` for x and dL/dx ``(B, d)``."""
        norm = torch.linalg.vector_norm(x - problem.project(x - dx), dim=1)
        # fmax, which ignores a NaN: it must not spoil the scale of later steps.
        self.largest = torch.fmax(self.largest, norm)
        return norm / self.largest.clamp_min(torch.finfo(norm.dtype).tiny)


class MuResidual:
    """||dL/dz|| / ||J_z^T mu + dl/dz||: a residual of mu relative to mu itself, which is what the gradient of Eq. 19 needs.

    The denominator is at least ``FLOOR`` times the largest one that this solve has seen: a mu below that counts as 0.

    Example:
        >>> residual, mu = MuResidual(), torch.tensor([[3.0, 4.0]])
        >>> residual(mu, dz=0.1 * mu).item()  # 0.5 / 5.5
        0.0909
        >>> residual(1e-9 * mu, dz=-1e-9 * mu).item() < 1e-5  # mu has vanished
        True
    """

    FLOOR = 1e-3

    def __init__(self) -> None:
        self.largest: Tensor | None = None

    def __call__(self, mu: Tensor, dz: Tensor) -> Tensor:
        """``(B,)`` for mu and dL/dz ``(B, n)``; 0 where both vanish."""
        norm = torch.linalg.vector_norm(mu + dz, dim=1)
        self.largest = norm if self.largest is None else torch.fmax(self.largest, norm)
        # Where the data are fitted exactly mu goes to 0 and the quotient, without a floor, to 0/0.
        whole = torch.maximum(norm, self.FLOOR * self.largest)
        return torch.linalg.vector_norm(dz, dim=1) / whole.clamp_min(torch.finfo(norm.dtype).tiny)


def residuals(problem: InnerProblem, v: Augmented, gradient: Augmented, of_mu: MuResidual, of_x: XResidual) -> Tensor:
    """Relative residuals of z, mu and x at v ``(B, 3)``, from dL/dv."""
    z = relative(gradient.mu, v.z + gradient.mu)
    return torch.stack([z, of_mu(v.mu, gradient.z), of_x(problem, v.x, gradient.x)], dim=1)


class SolveError(RuntimeError):
    """A solve whose answer cannot be used; :meth:`InnerSolution.require` raises it.

    Example:
        >>> v = Augmented.start(torch.zeros(1, 1), hidden=1)
        >>> bad = InnerSolution(v, torch.tensor([[0.5, 0.5, 0.5]]), torch.zeros(1), 40, torch.tensor([True]))
        >>> try:
        ...     bad.require()
        ... except SolveError as error:
        ...     print(str(error)[:41])
        z is not an equilibrium after 40 steps: m
    """


@dataclass(frozen=True)
class InnerSolution:
    """What Joint and Nested return. Its cost is not the feasible cost: that is the inner loss at z re-solved at the returned x.

    Example:
        >>> v, residuals = Augmented.start(torch.zeros(2, 1), hidden=3), torch.tensor([[1e-3, 1e-3, 0.1], [0.5, 0.5, 0.1]])
        >>> solution = InnerSolution(v, residuals, torch.zeros(2), num_steps=40, finite=torch.tensor([True, True]))
        >>> solution.feasible().tolist()
        [True, False]
        >>> InnerSolution(v, residuals, torch.zeros(2), 40, torch.tensor([True, True]), tol=0.2).converged.tolist()
        [True, False]
    """

    v: Augmented  # selected iterate, outside any graph
    residuals: Tensor  # (B, 3) relative ones of z (||f - z|| / ||f||), mu (MuResidual) and x (XResidual), at v
    cost: Tensor  # (B,) inner loss at v
    num_steps: int  # steps in x
    finite: Tensor  # (B,) bool, False where the sample fell back to its last finite iterate
    tol: float = 0.0  # what z, mu and x were solved to; 0 where x was not judged

    @classmethod
    def of(cls, solution: Solution, hidden: int, tol: float = 0.0) -> InnerSolution:
        """From a packed solve."""
        v = Augmented.unpack(solution.value, hidden)
        return cls(v, solution.residuals, solution.cost, solution.num_steps, solution.finite, tol)

    @property
    def converged(self) -> Tensor:
        """``(B,)`` bool: the samples whose z, mu and x are all solved to ``tol``; none without one."""
        return self.finite & (self.residuals < self.tol).all(dim=1)

    @property
    def feasibility(self) -> Tensor:
        """||f(z, x) - z|| / ||f(z, x)||, undamped, ``(B,)``."""
        return self.residuals[:, 0]

    def feasible(self, feasible_tol: float = 1e-2) -> Tensor:
        """``(B,)`` bool: the samples whose z is an equilibrium to ``feasible_tol``."""
        return self.finite & (self.feasibility < feasible_tol)

    def require(self, feasible_tol: float = 1e-2) -> InnerSolution:
        """This solution, or a SolveError.

        Without a tol it promises that all samples are finite, that the median sample is feasible and that its mu has converged;
        nothing of x. With one it promises z, mu and x of every sample to that tol.
        """
        complaint = diagnose(self, feasible_tol)
        if complaint is not None:
            judged = f"x was judged, by tol={self.tol:g}" if self.tol > 0 else "x was not judged: that needs a tol of the solver"
            raise SolveError(f"{complaint} ({judged})")
        return self


class InnerSolver(ABC):
    """``(InnerProblem, v0) -> InnerSolution``, without a graph.

    Example:
        A solver that tries two joint solves and returns the second from where the first ended.

        >>> from jiio_lightning.core import Joint
        >>> class Twice(InnerSolver):
        ...     max_steps = 80
        ...     def __call__(self, problem, v0, observers=()):
        ...         first = Joint(max_steps=40)(problem, v0, observers)
        ...         return Joint(max_steps=40)(problem, first.v, observers)
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: (z - 5).square().sum(1))
        >>> Twice()(problem, Augmented.start(torch.zeros(1, 1), hidden=1)).feasible().item()
        True
    """

    max_steps: int  # steps in x
    capturable: bool = False  # whether a solve, without a tolerance, may be recorded as a CUDA graph (core.capture)

    @abstractmethod
    def __call__(self, problem: InnerProblem, v0: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve from v0; observers see packed iterates."""


def diagnose(solution: InnerSolution, feasible_tol: float = 1e-2) -> str | None:
    """What is wrong with the median sample of a solve, the likely cause, and which setting to change; None if it is fine.

    Example:
        >>> v, residuals = Augmented.start(torch.zeros(1, 1), hidden=1), torch.tensor([[1e-3, 0.5, 0.1]])
        >>> diagnose(InnerSolution(v, residuals, torch.zeros(1), 40, torch.tensor([True])))[:33]
        'mu has not converged after 40 ste'
    """
    if not bool(solution.finite.all()):
        return (
            f"{int((~solution.finite).sum())} of {solution.finite.numel()} samples met a value that is not finite after at most "
            f"{solution.num_steps} steps. If it happens at the first step, the data or the weights hold NaN or Inf: check them; "
            "else the iteration diverges: lower the step in x (step.size) or the steps in z and mu (step_sizes), "
            "or raise the Jacobian penalty (jacobian.coefficient)."
        )
    if solution.tol > 0 and not bool(solution.converged.all()):
        return _not_converged(solution)
    # The median: a few samples that do not converge are usual, and training leaves them out.
    z, mu, x = (float(value) for value in torch.median(solution.residuals, dim=0).values)
    if z < feasible_tol:
        return None if mu < MU_SLACK * feasible_tol else _mu_not_converged(solution, mu, MU_SLACK * feasible_tol)
    measured = (
        f"z is not an equilibrium after {solution.num_steps} steps: median residual of z {z:.1e} (wanted {feasible_tol:.0e}), "
        f"of mu {mu:.1e}, of x {x:.1e}. "
    )
    if x > feasible_tol:
        return measured + "x still moves, faster than z can follow: lower step.size or raise max_steps."
    return measured + (
        "x has stopped but z has not: f is hardly a contraction there. Raise jacobian.coefficient when training, lower "
        "step_sizes.z, or use method: Anderson."
    )


def _not_converged(solution: InnerSolution) -> str:
    worst = ", ".join(f"{name} {float(v):.1e}" for name, v in zip(RESIDUALS, solution.residuals.amax(dim=0), strict=True))
    return (
        f"{int((~solution.converged).sum())} of {len(solution.finite)} samples have not converged to tol={solution.tol:g} after "
        f"{solution.num_steps} steps: largest residuals {worst}. Raise max_steps or tol, use float64, or go on with the samples "
        "that solution.converged marks."
    )


def _mu_not_converged(solution: InnerSolution, mu: float, wanted: float) -> str:
    return (
        f"mu has not converged after {solution.num_steps} steps: median residual {mu:.1e} (wanted {wanted:.0e}), while z has. "
        "The gradient of the weights that re-uses it (Eq. 19) is off: raise max_steps, lower step.size, or let the outer "
        "gradient refine mu (outer: DualReuse with refine)."
    )
