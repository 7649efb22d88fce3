"""The KKT conditions (Eq. 14), how far an iterate is from them, and the linear system behind the full gradient (Eq. 16-17)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio_lightning.core.gmres import LinearSolution, gmres
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.state import Augmented


@dataclass(frozen=True)
class KKTResidual:
    """Norms of the three rows of Eq. 14 for each sample, in the units of their rows.

    Example:
        >>> at = KKTResidual(z=torch.zeros(1), mu=torch.zeros(1), x=torch.ones(1))
        >>> {row: value.item() for row, value in vars(at).items()}
        {'z': 0.0, 'mu': 0.0, 'x': 1.0}
    """

    z: Tensor  # ||f(z, x) - z||, (B,)
    mu: Tensor  # ||dL/dz||, (B,)
    x: Tensor  # ||x - P(x - dL/dx)||, (B,); without a constraint ||dL/dx||


def kkt_residual(problem: InnerProblem, v: Augmented) -> KKTResidual:
    """The norm of the (projected) KKT map at v.

    Example:
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> z, mu, x = torch.tensor([[4.0], [-2.0], [2.0]]).split(1)  # the optimum
        >>> float(kkt_residual(problem, Augmented(z, mu, x)).x), float(kkt_residual(problem, Augmented(z, mu, x + 1)).x)
        (0.0, 1.0)
    """
    gradient = problem.gradients(v)
    step = v.x - problem.project(v.x - gradient.x)
    return KKTResidual(*(torch.linalg.vector_norm(row, dim=1) for row in (gradient.mu, gradient.z, step)))


def kkt_map(problem: InnerProblem, v: Augmented) -> Augmented:
    r"""The KKT map :math:`K_\theta(v)` (Eq. 14) with a graph to v and to the weights.

    .. math::
        K = \left( \partial_z L,\; f(z, x) - z,\; x - P(x - \partial_x L) \right)

    A zero of it is a KKT point also with the constraint active. The row that belongs to mu is dL/dz and the other way round,
    so that without a constraint K is the gradient of L and its Jacobian is symmetric. The blocks of v have to require grad.

    Example:
        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * (z - 5).square().sum(1))
        >>> v = Augmented(*torch.zeros(3, 1, 1, requires_grad=True))
        >>> kkt_map(problem, v).z.item(), kkt_map(problem, v).pack().requires_grad
        (-5.0, True)
    """
    fz, loss = problem.f(v.z, v.x), problem.loss(v.z, v.x)
    dz, dx = torch.autograd.grad((loss, fz), (v.z, v.x), (torch.ones_like(loss), v.mu), create_graph=True, materialize_grads=True)
    return Augmented(z=dz - v.mu, mu=fz - v.z, x=v.x - problem.project(v.x - dx))


class KKTLinearisation:
    """The KKT map at a solution v, with its graph: for products with the transposed Jacobian, and to the weights.

    Example:
        Without a constraint the Jacobian is symmetric; its first column has d(dL/dz)/dz and J_z - 1.

        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * (z - 5).square().sum(1))
        >>> zero = torch.zeros(1, 1)
        >>> at = KKTLinearisation(problem, Augmented(zero, zero, zero))
        >>> at.pull(Augmented(z=zero + 1, mu=zero, x=zero)).pack().tolist()
        [[1.0, -0.5, 0.0]]
    """

    def __init__(self, problem: InnerProblem, v: Augmented) -> None:
        with torch.enable_grad():
            self.v = Augmented(*(block.detach().clone().requires_grad_() for block in (v.z, v.mu, v.x)))
            self.value = kkt_map(problem, self.v)

    def pull(self, u: Augmented) -> Augmented:
        r""":math:`K_v^\top u`, by a backward pass through the backward pass."""
        pulled = torch.autograd.grad(
            (self.value.z, self.value.mu, self.value.x),
            (self.v.z, self.v.mu, self.v.x),
            (u.z, u.mu, u.x),
            retain_graph=True,
            materialize_grads=True,
        )
        return Augmented(*pulled)


def kkt_adjoint(
    at: KKTLinearisation, outer_gradient: Augmented, *, memory: int = 50, restarts: int = 4, tol: float = 1e-5
) -> tuple[Augmented, LinearSolution]:
    r"""Solve Eq. 17 for u by GMRES; the products with :math:`K_v^\top` are double backward passes.

    .. math:: \left( \frac{\partial K_\theta(v)}{\partial v} \right)^\top u = - \partial_v \ell^{\mathrm{outer}}

    ``outer_gradient`` is that of the outer loss in v, the budget that of :func:`gmres`. Returns u and the linear solve, whose
    residual says whether to trust u.

    Example:
        >>> problem = InnerProblem(
        ...     f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * ((z - 5).square() + x.square()).sum(1)
        ... )
        >>> at = KKTLinearisation(problem, Augmented(*torch.tensor([4.0, -2.0, 2.0]).view(3, 1, 1)))
        >>> gradient = Augmented(*torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))  # of z alone
        >>> u, solution = kkt_adjoint(at, gradient)
        >>> torch.allclose(at.pull(u).pack(), -gradient.pack(), atol=1e-5), bool(solution.within(1e-5).all())
        (True, True)
    """

    # GMRES looks for u in the order of the paper's rows, f - z before dL/dz: then the diagonal blocks are J_z - I, near -I for a
    # contraction, and the Krylov space needs about 2 d vectors for the coupling to x more than an adjoint solve.
    def swapped(packed: Tensor) -> Augmented:  # from that order to kkt_map's, and back
        rows = Augmented.unpack(packed, at.v.hidden)
        return Augmented(z=rows.mu, mu=rows.z, x=rows.x)

    solution = gmres(
        lambda packed: at.pull(swapped(packed)).pack(), -outer_gradient.pack(), memory=memory, restarts=restarts, tol=tol
    )
    return swapped(solution.value), solution
