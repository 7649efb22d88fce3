"""The equilibrium z = f(z, x) at a fixed x (Eq. 3), its adjoint (Eq. 9), and the gradient that they give (Eq. 7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from jiio_lightning.core.solvers.base import FixedPoint, Solution

Cell = Callable[[Tensor, Tensor], Tensor]


class Linearisation:
    """f at one point (z, x), its graph kept so that products with both Jacobians cost one backward pass each.

    Args:
        f: the cell.
        z: ``(B, n)``.
        x: ``(B, d)``.
    """

    def __init__(self, f: Cell, z: Tensor, x: Tensor) -> None:
        with torch.enable_grad():
            self.z = z.detach().clone().requires_grad_()
            self.x = x.detach().clone().requires_grad_()
            self.image = f(self.z, self.x)

    def pull(self, mu: Tensor) -> tuple[Tensor, Tensor]:
        """``J_z^T mu`` ``(B, n)`` and ``J_x^T mu`` ``(B, d)`` in one backward pass."""
        z, x = torch.autograd.grad(self.image, (self.z, self.x), mu, retain_graph=True, materialize_grads=True)
        return z, x

    def pull_z(self, mu: Tensor) -> Tensor:
        """``J_z^T mu``, ``(B, n)``; zeros where f does not depend on z, as in an explicit network."""
        (pulled,) = torch.autograd.grad(self.image, self.z, mu, retain_graph=True, materialize_grads=True)
        return pulled

    def pull_x(self, mu: Tensor) -> Tensor:
        """``J_x^T mu``, ``(B, d)``."""
        (pulled,) = torch.autograd.grad(self.image, self.x, mu, retain_graph=True, materialize_grads=True)
        return pulled


def adjoint(at: Linearisation, cotangent: Tensor, solver: FixedPoint, mu0: Tensor | None = None) -> Solution:
    r"""Solve the adjoint equation at a fixed point (Eq. 9).

    .. math:: \mu = J_z^\top \mu + \partial_z \ell

    Args:
        at: f linearised at (z, x).
        cotangent: dl/dz ``(B, n)``.
        solver: method and budget; with Picard it is the Neumann series, truncated at the budget.
        mu0: start; 0 unless given.

    Returns:
        The solution, its ``value`` mu ``(B, n)``.
    """
    start = torch.zeros_like(cotangent) if mu0 is None else mu0
    return solver(lambda mu: at.pull_z(mu) + cotangent, start)


class Backward(ABC):
    """How the gradient goes back through an equilibrium."""

    @abstractmethod
    def pull(self, at: Linearisation, cotangent: Tensor) -> Tensor:
        """The cotangent of f's output ``(B, n)`` for a cotangent of the equilibrium ``(B, n)``."""


class Implicit(Backward):
    """The implicit function theorem: the adjoint equation, solved (Eq. 7).

    Args:
        solver: method and budget of the adjoint solve.
    """

    def __init__(self, solver: FixedPoint) -> None:
        self.solver = solver

    def pull(self, at: Linearisation, cotangent: Tensor) -> Tensor:
        return adjoint(at, cotangent, self.solver).value


class TruncatedNeumann(Backward):
    r"""The first terms of the Neumann series, :math:`\sum_{k < terms} (J_z^\top)^k g`.

    Args:
        terms: at least 1.
    """

    def __init__(self, terms: int) -> None:
        if terms < 1:
            raise ValueError(f"a Neumann series needs at least one term, got {terms}")
        self.terms = terms

    def pull(self, at: Linearisation, cotangent: Tensor) -> Tensor:
        mu = cotangent
        for _ in range(self.terms - 1):
            mu = at.pull_z(mu) + cotangent
        return mu


class OneStep(TruncatedNeumann):
    """The Jacobian-free gradient (Fung et al. 2021): the series' first term alone."""

    def __init__(self) -> None:
        super().__init__(terms=1)


def equilibrium(f: Cell, x: Tensor, z0: Tensor, forward: FixedPoint, backward: Backward) -> Tensor:
    r"""The fixed point :math:`z^*(x) = f(z^*, x)` (Eq. 3), differentiable in x and in the weights of f.

    .. math:: \frac{\partial \ell}{\partial \theta} = \mu^\top \frac{\partial f}{\partial \theta}, \quad
              (I - J_z)^\top \mu = \partial_z \ell

    Not within ``torch.nn.utils.parametrize.cached()`` where a gradient is wanted: the solve, which comes first and keeps no
    graph, would fill the cache with weights that have none, and they would never be trained.

    Args:
        f: the cell.
        x: ``(B, d)``.
        z0: start ``(B, n)``.
        forward: method and budget of the forward solve, which keeps no graph.
        backward: Implicit, TruncatedNeumann or OneStep.

    Returns:
        ``(B, n)``: f evaluated once more at the solution, with that evaluation's graph.

    Raises:
        RuntimeError: in a backward pass with ``create_graph``: second derivatives are not available.
    """
    with torch.no_grad():
        z = forward(lambda z: f(z, x), z0).value
    image = f(z, x)
    if image.requires_grad:
        image.register_hook(lambda cotangent: _pull(backward, Linearisation(f, z, x), cotangent))
    return image


def _pull(backward: Backward, at: Linearisation, cotangent: Tensor) -> Tensor:
    """The hook of :func:`equilibrium`: it solves, so that a second derivative through it would be silently wrong."""
    if torch.is_grad_enabled():
        raise RuntimeError("equilibrium() has first derivatives only: leave out create_graph, or use core.kkt for second ones")
    return backward.pull(at, cotangent)
