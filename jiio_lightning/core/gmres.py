"""GMRES for a batch of independent linear systems that are known only by their products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHECK = 5
"""Products between two looks at whether all systems are solved: each look makes the host wait for the device."""


@dataclass(frozen=True)
class LinearSolution:
    """A solve of A u = b.

    Example:
        >>> solution = LinearSolution(torch.zeros(2, 3), residual=torch.tensor([1e-7, 0.1]), num_products=12)
        >>> solution.within(1e-6).tolist()
        [True, False]
    """

    value: Tensor  # u (B, N)
    residual: Tensor  # ||A u - b|| / ||b||, (B,)
    num_products: int  # products with A

    def within(self, tol: float) -> Tensor:
        """``(B,)`` bool: solved to tol."""
        return self.residual < tol


def gmres(
    product: Callable[[Tensor], Tensor], rhs: Tensor, *, memory: int = 30, restarts: int = 1, tol: float = 1e-6
) -> LinearSolution:
    """Restarted GMRES (Saad & Schultz 1986) for ``product(u) = rhs``, both ``(B, N)``, each row a system of its own.

    There are ``memory`` Krylov vectors between restarts and ``restarts`` cycles at most. A system whose relative residual is
    below ``tol`` counts as solved and takes no further part.

    Returns:
        The best u and its true residual: look at it, nothing is raised when the budget was too small.

    Example:
        >>> matrix, rhs = torch.tensor([[2.0, 1.0], [0.0, 4.0]]), torch.tensor([[4.0, 8.0]])
        >>> gmres(lambda u: u @ matrix.T, rhs).value.tolist()
        [[1.0, 2.0]]
    """
    # An orthogonal basis in bfloat16 is none, and one with a graph cannot be written into.
    with torch.no_grad(), torch.autocast(rhs.device.type, enabled=False):
        value, products = torch.zeros_like(rhs), 0
        scale = torch.linalg.vector_norm(rhs, dim=1).clamp_min(torch.finfo(rhs.dtype).tiny)
        residual = rhs
        for _ in range(restarts):
            unsolved = torch.linalg.vector_norm(residual, dim=1) >= tol * scale  # a NaN is not waited for
            if not bool(unsolved.any()):
                break
            left = torch.where(unsolved.unsqueeze(1), residual, 0.0)
            step, used = _cycle(product, left, min(memory, rhs.shape[1]), tol * scale)
            value = value + step
            residual = rhs - product(value)
            products += used + 1
    return LinearSolution(value, torch.linalg.vector_norm(residual, dim=1) / scale, products)


def _cycle(product: Callable[[Tensor], Tensor], residual: Tensor, memory: int, goal: Tensor) -> tuple[Tensor, int]:
    """One Arnoldi basis and the least-squares step in it; the products that it took.

    A row adds zero vectors once its basis is exhausted or its residual below ``goal`` ``(B,)``, so that its step is its own
    business; the cycle ends where all rows have come to that.
    """
    batch = residual.shape[0]
    basis = residual.new_zeros(batch, memory + 1, residual.shape[1])
    hessenberg = residual.new_zeros(batch, memory + 1, memory)
    estimate = _ResidualEstimate(residual.new_zeros(batch, memory + 1))
    norm = torch.linalg.vector_norm(residual, dim=1)
    basis[:, 0] = _unit(residual, norm, norm)
    used = 0
    while used < memory:
        k, used = used, used + 1
        new = product(basis[:, k])
        size = torch.linalg.vector_norm(new, dim=1)
        for _ in range(2):  # twice is enough to stay orthogonal
            weights = torch.bmm(basis[:, : k + 1], new.unsqueeze(2))
            hessenberg[:, : k + 1, k] += weights.squeeze(2)
            new = new - torch.bmm(weights.transpose(1, 2), basis[:, : k + 1]).squeeze(1)
        hessenberg[:, k + 1, k] = torch.linalg.vector_norm(new, dim=1)
        following = _unit(new, hessenberg[:, k + 1, k], size)
        going = norm * estimate(hessenberg, k) >= goal
        basis[:, k + 1] = torch.where(going.unsqueeze(1), following, 0.0)
        if used % CHECK == 0 and not bool(basis[:, k + 1].any()):
            break
    target = residual.new_zeros(batch, used + 1, 1)
    target[:, 0, 0] = norm
    hessenberg = hessenberg[:, : used + 1, :used]
    usable = torch.isfinite(hessenberg).all(dim=2, keepdim=True).all(dim=1, keepdim=True)  # one NaN stops the batch's SVD
    weights = torch.linalg.pinv(torch.where(usable, hessenberg, 0.0)) @ target
    return torch.bmm(weights.transpose(1, 2), basis[:, :used]).squeeze(1), used


class _ResidualEstimate:
    r"""The least residual over a growing Krylov basis, without solving for it.

    The residual of :math:`\min_u \| \beta e_1 - \bar H u \|` is the part of :math:`\beta e_1` along the one vector c with
    :math:`c^\top \bar H = 0`, which grows by an element with each column of the Hessenberg matrix:

    .. math:: c_0 = 1, \quad c_{k + 1} = - \sum_{j \le k} c_j h_{j k} / h_{k + 1, k}, \quad \| r_k \| / \beta = 1 / \| c \|
    """

    def __init__(self, null: Tensor) -> None:
        self.null = null  # c, zeros (B, memory + 1) at first
        self.null[:, 0] = 1.0

    def __call__(self, hessenberg: Tensor, k: int) -> Tensor:
        """||r|| / beta after column k, the last one known, ``(B,)``; NaN where the basis is exhausted."""
        column = (self.null[:, : k + 1] * hessenberg[:, : k + 1, k]).sum(dim=1)
        self.null[:, k + 1] = -column / hessenberg[:, k + 1, k]
        return 1 / torch.linalg.vector_norm(self.null[:, : k + 2], dim=1)


def _unit(vector: Tensor, norm: Tensor, size: Tensor) -> Tensor:
    """The vector at length 1, or 0 where it is rounding error next to ``size``."""
    real = norm > 10 * torch.finfo(vector.dtype).eps * size
    return torch.where(real.unsqueeze(1), vector / torch.where(real, norm, 1.0).unsqueeze(1), 0.0)
