"""The gradient of an outer loss with respect to the weights (Sec. 3.4), in its three forms.

Each form turns a solved inner problem into a *surrogate*: a value ``(B,)`` whose autograd gradient with respect to the weights is
the wanted one. The surrogate's value means nothing: log the outer loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from jiio_lightning.core.equilibrium import Linearisation, adjoint
from jiio_lightning.core.kkt import KKTLinearisation, kkt_adjoint
from jiio_lightning.core.problem import InnerProblem, loss_gradient
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented

Loss = Callable[[Tensor, Tensor], Tensor]
"""``z (B, n), x (B, d) -> (B,)``, like ``InnerProblem.loss``."""


@dataclass(frozen=True)
class Surrogate:
    """What an outer gradient gives to the optimiser.

    Example:
        >>> import torch
        >>> weight = torch.tensor(3.0, requires_grad=True)
        >>> Surrogate(value=weight * torch.ones(2)).value.mean().backward()
        >>> weight.grad.item()
        1.0
    """

    value: Tensor  # (B,), with a graph to the weights
    residual: Tensor | None = None  # (B,) relative one of the linear solve behind it; None where there was none


class OuterGradient(ABC):
    """From a solved inner problem and an outer loss to a surrogate.

    Example:
        One that forgets how z and x depend on the weights.

        >>> import torch
        >>> class Direct(OuterGradient):
        ...     def surrogate(self, problem, outer, v):
        ...         return Surrogate(outer(v.z, v.x))
        >>> head = torch.tensor(2.0, requires_grad=True)
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: (head * z).square().sum(1))
        >>> v = Augmented.start(torch.zeros(1, 1), hidden=1)
        >>> Direct().surrogate(problem, problem.loss, v).value.requires_grad
        True
    """

    @abstractmethod
    def surrogate(self, problem: InnerProblem, outer: Loss, v: Augmented) -> Surrogate:
        """The surrogate at the inner solution v."""


class DualReuse(OuterGradient):
    r"""Outer loss = sign * inner loss: the dual of the inner problem is all that is needed (Eq. 19).

    .. math:: \frac{\partial \ell^{outer}}{\partial \theta} = \pm \partial_\theta L(z^*, \mu^*, x^*)

    Args:
        sign: +1 (generation) or -1 (adversarial training).
        refine: solver of Eq. 9 that polishes mu at the fixed (z, x) first, starting from it; None uses mu as it is.

    Example:
        The optimum of 1/2 (z - 5)^2 + 1/2 x^2 with z = z / 2 + w x is 12.5 / (1 + 4 w^2); its derivative at w = 1 is -4.

        >>> import torch
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + w * x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> v = Augmented(*torch.tensor([4.0, -2.0, 2.0]).view(3, 1, 1))
        >>> torch.autograd.grad(DualReuse().surrogate(problem, problem.loss, v).value.sum(), w)[0].item()
        -4.0
    """

    def __init__(self, sign: float = 1.0, refine: FixedPoint | None = None) -> None:
        self.sign = sign
        self.refine = refine

    def surrogate(self, problem: InnerProblem, outer: Loss, v: Augmented) -> Surrogate:
        """``outer`` is ignored: it is sign * ``problem.loss``."""
        v, residual = v.detach(), None  # at a KKT point dL/dv = 0: what v owes to the weights does not count
        if self.refine is not None:
            v, residual = refine_dual(problem, v, self.refine)
        return Surrogate(self.sign * problem.lagrangian(v), residual)


def refine_dual(problem: InnerProblem, v: Augmented, solver: FixedPoint) -> tuple[Augmented, Tensor]:
    """v with mu polished by Eq. 9 at its own (z, x), starting from its mu; and the residual of that solve ``(B,)``.

    Example:
        >>> import torch
        >>> from jiio_lightning.core.solvers import Picard
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * (z - 5).square().sum(1))
        >>> v = Augmented(*torch.tensor([4.0, 0.0, 2.0]).view(3, 1, 1))
        >>> refine_dual(problem, v, FixedPoint(Picard(), max_steps=40))[0].mu.item()
        -2.0
    """
    gradient = loss_gradient(problem.loss, v).gradient
    solution = adjoint(Linearisation(problem.f, v.z, v.x), gradient.z, solver, mu0=v.mu)
    return replace(v, mu=solution.value), solution.residual


class FixedInput(OuterGradient):
    r"""Any outer loss, x* taken as a constant (the paper's choice for inverse problems and meta-learning, B.1).

    .. math:: \partial_\theta \left[ \ell^{outer}(z^*, x^*) + \nu^\top f_\theta(z^*, x^*) \right], \quad
              \nu = J_z^\top \nu + \partial_z \ell^{outer}

    Args:
        solver: of the adjoint equation (Eq. 9) of the outer loss.

    Example:
        With x fixed, z = 2 w x: the derivative of the outer loss z in w is 2 x = 4.

        >>> import torch
        >>> from jiio_lightning.core.solvers import Picard
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + w * x, loss=lambda z, x: (z - 5).square().sum(1))
        >>> v = Augmented(*torch.tensor([4.0, -2.0, 2.0]).view(3, 1, 1))
        >>> surrogate = FixedInput(FixedPoint(Picard(), 40)).surrogate(problem, lambda z, x: z.sum(1), v)
        >>> torch.autograd.grad(surrogate.value.sum(), w)[0].item()
        4.0
    """

    def __init__(self, solver: FixedPoint) -> None:
        self.solver = solver

    def surrogate(self, problem: InnerProblem, outer: Loss, v: Augmented) -> Surrogate:
        return self.with_input(problem, outer, v)[0]

    def with_input(self, problem: InnerProblem, outer: Loss, v: Augmented) -> tuple[Surrogate, Tensor]:
        r"""The surrogate, and what it leaves out: the gradient in x, ``(B, d)``.

        .. math:: \frac{d \ell^{outer}}{d x} = J_x^\top \nu + \partial_x \ell^{outer}
        """
        v = v.detach()
        gradient = loss_gradient(outer, v).gradient
        at = Linearisation(problem.f, v.z, v.x)
        solution = adjoint(at, gradient.z, self.solver)
        value = replace(problem, loss=outer).lagrangian(replace(v, mu=solution.value))
        return Surrogate(value, solution.residual), at.pull_x(solution.value) + gradient.x


class FullKKT(OuterGradient):
    r"""Any outer loss, differentiated through x* as well (Eq. 16-17), which the paper could not take.

    .. math:: \partial_\theta \left[ \ell^{outer}(v^*) + u^\top K_\theta(v^*) \right], \quad
              K_v^\top u = - \partial_v \ell^{outer}

    The implicit function theorem divides by the curvature of the inner problem in x. Where a solve ends at its budget, not at a
    minimum, that curvature is near 0 or negative in some directions (on digits: eigenvalues from -0.2 to 8 after 40 steps), and
    the exact gradient is long and points elsewhere. ``ridge`` differentiates the proximal problem instead, the inner loss plus
    :math:`\frac{\rho}{2} \| x - x^* \|^2`, which has the same solution: directions in x of less curvature than rho count as
    constant. It goes from the full gradient (0) to FixedInput (infinity).

    Args:
        memory: Krylov vectors of GMRES between restarts; a restart loses what a symmetric indefinite system needs most.
        restarts: cycles at most.
        tol: relative residual that ends the solve.
        ridge: rho, in units of the inner loss per unit of x squared.

    Raises:
        ValueError: for a negative ridge.

    Example:
        Here x* = 10 w / (1 + 4 w^2) and z* = 2 w x*, so that the derivative of the outer loss z* in w is 1.6 at w = 1.

        >>> import torch
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + w * x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> v = Augmented(*torch.tensor([4.0, -2.0, 2.0]).view(3, 1, 1))
        >>> surrogate = FullKKT().surrogate(problem, lambda z, x: z.sum(1), v)
        >>> torch.autograd.grad(surrogate.value.sum(), w)[0].item()
        1.6
    """

    def __init__(
        self, memory: PositiveInt = 120, restarts: PositiveInt = 2, tol: NonNegativeFloat = 1e-5, ridge: NonNegativeFloat = 0.0
    ) -> None:
        if ridge < 0:
            raise ValueError(f"FullKKT needs ridge >= 0, got {ridge}")
        self.memory = memory
        self.restarts = restarts
        self.tol = tol
        self.ridge = ridge

    def surrogate(self, problem: InnerProblem, outer: Loss, v: Augmented) -> Surrogate:
        v = v.detach()
        at = KKTLinearisation(self._proximal(problem, v.x), v)
        gradient = loss_gradient(outer, v).gradient
        u, solution = kkt_adjoint(at, gradient, memory=self.memory, restarts=self.restarts, tol=self.tol)
        # v is a constant in both terms: the first is what the outer loss sees of the weights itself, the second what v* does.
        value = outer(v.z, v.x) + (u.pack() * at.value.pack()).sum(dim=1)
        return Surrogate(value, solution.residual)

    def _proximal(self, problem: InnerProblem, centre: Tensor) -> InnerProblem:
        """The problem that stays near a solution x ``(B, d)``: its own KKT point, with curvature rho added in x."""

        def loss(z: Tensor, x: Tensor) -> Tensor:
            return problem.loss(z, x) + 0.5 * self.ridge * (x - centre).square().sum(dim=1)

        return replace(problem, loss=loss)
