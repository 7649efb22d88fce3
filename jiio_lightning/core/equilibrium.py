"""The equilibrium z = f(z, x) at a fixed x (Eq. 3), its adjoint (Eq. 9), and the gradient that they give (Eq. 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio_lightning.core.solvers.base import FixedPoint, Solution

Cell = Callable[[Tensor, Tensor], Tensor]
"""f: ``z (B, n), x (B, d) -> (B, n)``."""


class Linearisation:
    """f at one point z ``(B, n)``, x ``(B, d)`` with its graph: products with both Jacobians cost one backward pass each.

    Example:
        >>> at = Linearisation(lambda z, x: z.square() + 3 * x, z=torch.tensor([[2.0]]), x=torch.tensor([[1.0]]))
        >>> at.value.item(), at.pull_z(torch.ones(1, 1)).item(), at.pull_x(torch.ones(1, 1)).item()
        (7.0, 4.0, 3.0)
    """

    def __init__(self, f: Cell, z: Tensor, x: Tensor) -> None:
        with torch.enable_grad():
            # Copies: autograd cannot differentiate by an inference tensor.
            self.z = z.detach().clone().requires_grad_()
            self.x = x.detach().clone().requires_grad_()
            self.value = f(self.z, self.x)

    @classmethod
    def of(cls, value: Tensor, z: Tensor, x: Tensor) -> Linearisation:
        """Of f that has been evaluated already, with its graph to z; x is not differentiated."""
        at = cls.__new__(cls)
        at.value, at.z, at.x = value, z, x
        return at

    def pull(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """``J_z^T mu`` ``(B, n)`` and ``J_x^T mu`` ``(B, d)`` in one backward pass."""
        z, x = torch.autograd.grad(self.value, (self.z, self.x), mu, retain_graph=True, materialize_grads=True)
        return z, x

    def pull_z(self, mu: Tensor) -> Tensor:
        """``J_z^T mu``, ``(B, n)``; zeros where f does not depend on z, as in an explicit network."""
        (pulled,) = torch.autograd.grad(self.value, self.z, mu, retain_graph=True, materialize_grads=True)
        return pulled

    def pull_x(self, mu: Tensor) -> Tensor:
        """``J_x^T mu``, ``(B, d)``."""
        (pulled,) = torch.autograd.grad(self.value, self.x, mu, retain_graph=True, materialize_grads=True)
        return pulled


def adjoint(at: Linearisation, cotangent: Tensor, solver: FixedPoint, mu0: Tensor | None = None) -> Solution:
    r"""Solve the adjoint equation at a fixed point (Eq. 9) for mu ``(B, n)``; the cotangent is dl/dz ``(B, n)``.

    .. math:: \mu = J_z^\top \mu + \partial_z \ell

    It starts at 0 unless ``mu0`` is given; from there Picard is the Neumann series, truncated at the budget.

    Example:
        >>> from jiio_lightning.core.solvers import Picard
        >>> at = Linearisation(lambda z, x: z / 2 + x, z=torch.zeros(1, 1), x=torch.zeros(1, 1))
        >>> adjoint(at, torch.ones(1, 1), FixedPoint(Picard(), max_steps=30)).value.item()  # 1 / (1 - 1/2)
        2.0
    """
    start = torch.zeros_like(cotangent) if mu0 is None else mu0
    return solver(lambda mu: at.pull_z(mu) + cotangent, start)


@dataclass(frozen=True)
class Neumann:
    r"""The adjoint by a truncated series, :math:`\mu \approx \sum_{k=0}^{T} (J_z^\top)^k \partial_z \ell`, without a residual.

    T products with the Jacobian, where Picard takes two more for the same value: it starts at 0 and measures where it ends.

    Args:
        order: T. 0 takes dl/dz for mu; 1 is what (Implicit)^2 trains with (Eq. 14 there, Fig. 4).

    Example:
        >>> at = Linearisation(lambda z, x: z / 2 + x, z=torch.zeros(1, 1), x=torch.zeros(1, 1))
        >>> [Neumann(order)(at, torch.ones(1, 1)).item() for order in (0, 1, 2)]
        [1.0, 1.5, 1.75]
    """

    order: int = 1

    def __post_init__(self) -> None:
        if self.order < 0:
            raise ValueError(f"a Neumann series needs order >= 0, got {self.order}")

    def __call__(self, at: Linearisation, cotangent: Tensor) -> Tensor:
        """mu ``(B, n)`` for the cotangent dl/dz ``(B, n)``."""
        mu = cotangent
        for _ in range(self.order):
            mu = at.pull_z(mu) + cotangent
        return mu


Backward = FixedPoint | Callable[[Linearisation, Tensor], Tensor]
"""How mu ``(B, n)`` is had from the linearisation of f and the cotangent dl/dz: solved, or by a rule such as :class:`Neumann`."""


def equilibrium(f: Cell, x: Tensor, z0: Tensor, forward: FixedPoint | None, backward: Backward) -> Tensor:
    r"""The fixed point :math:`z^*(x) = f(z^*, x)` (Eq. 3), differentiable in x and in all that f depends on.

    .. math:: \frac{\partial \ell}{\partial \theta} = \mu^\top \frac{\partial f}{\partial \theta}, \quad
              (I - J_z)^\top \mu = \partial_z \ell

    The forward solve, from z0 ``(B, n)`` at x ``(B, d)``, has no graph; ``backward`` solves the adjoint equation in the backward
    pass. What is returned ``(B, n)`` is f evaluated once more at the solution, with that evaluation's graph, and the adjoint is
    that of the same evaluation. With ``forward`` None z0 is taken as it is: of a warm start that is near enough, one evaluation
    of f is the whole step. There is no gradient to z0.

    Raises:
        RuntimeError: in a backward pass with ``create_graph``: second derivatives are not available.

    Example:
        z = z / 2 + x has the solution 2 x, and its derivative 2.

        >>> from jiio_lightning.core.solvers import Picard
        >>> x, solver = torch.tensor([[3.0]], requires_grad=True), FixedPoint(Picard(), max_steps=40)
        >>> z = equilibrium(lambda z, x: z / 2 + x, x, torch.zeros(1, 1), solver, solver)
        >>> z.item(), torch.autograd.grad(z.sum(), x)[0].item()
        (6.0, 2.0)
    """
    with torch.no_grad():
        z = z0 if forward is None else forward(lambda z: f(z, x), z0).value
    if not torch.is_grad_enabled():
        return f(z, x).to(z.dtype)
    z = (z.clone() if z.is_inference() else z).detach().requires_grad_()
    fz = f(z, x).to(z.dtype)  # under autocast f may end in a short type
    if not _has_other_leaf(fz, z):
        return fz.detach()
    # A view has a hook of its own, which the products with the Jacobian do not meet again. The hook puts mu in the place of
    # dl/dz: the graph of this one evaluation then gives Eq. 7. Another evaluation in the backward pass could find other weights
    # (functional_call, cached ones), another dropout mask or no autocast.
    result = fz.view_as(fz)
    result.register_hook(lambda cotangent: _pull(Linearisation.of(fz, z, x), cotangent, backward))
    return result


def _has_other_leaf(value: Tensor, leaf: Tensor) -> bool:
    """Whether a backward pass from value reaches anything else; where it does, the first few nodes nearly always say so."""
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if not node.next_functions and getattr(node, "variable", None) is not leaf:
            return True
        todo += [parent for parent, _ in node.next_functions]
    return False


def _pull(at: Linearisation, cotangent: Tensor, backward: Backward) -> Tensor:
    """The hook of :func:`equilibrium`: it solves, so that a second derivative through it would be silently wrong."""
    if torch.is_grad_enabled():
        raise RuntimeError("equilibrium() has first derivatives only: leave out create_graph, or use core.kkt for second ones")
    return adjoint(at, cotangent, backward).value if isinstance(backward, FixedPoint) else backward(at, cotangent)
