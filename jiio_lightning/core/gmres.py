"""GMRES for a batch of independent linear systems that are known only by their products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearSolution:
    """A solve of A u = b.

    Args:
        value: u ``(B, N)``.
        residual: ||A u - b|| / ||b||, ``(B,)``.
        num_products: products with A.
    """

    value: Tensor
    residual: Tensor
    num_products: int

    def within(self, tol: float) -> Tensor:
        """``(B,)`` bool: solved to tol."""
        return self.residual < tol


def gmres(
    product: Callable[[Tensor], Tensor], rhs: Tensor, *, memory: int = 30, restarts: int = 1, tol: float = 1e-6
) -> LinearSolution:
    """Restarted GMRES (Saad & Schultz 1986), each row of rhs a system of its own.

    Args:
        product: ``A u`` for each row, ``(B, N) -> (B, N)``.
        rhs: b ``(B, N)``.
        memory: Krylov vectors between restarts.
        restarts: cycles at most.
        tol: relative residual at which the cycles end.

    Returns:
        The best u and its true residual: look at it, nothing is raised when the budget was too small.
    """
    value, products = torch.zeros_like(rhs), 0
    scale = torch.linalg.vector_norm(rhs, dim=1).clamp_min(torch.finfo(rhs.dtype).tiny)
    residual = rhs
    for _ in range(restarts):
        step, used = _cycle(product, residual, min(memory, rhs.shape[1]))
        value = value + step
        residual = rhs - product(value)
        products += used + 1
        if not bool((torch.linalg.vector_norm(residual, dim=1) >= tol * scale).any()):  # a NaN is not waited for
            break
    return LinearSolution(value, torch.linalg.vector_norm(residual, dim=1) / scale, products)


def _cycle(product: Callable[[Tensor], Tensor], residual: Tensor, memory: int) -> tuple[Tensor, int]:
    """One Arnoldi basis and the least-squares step in it; a row whose basis is exhausted adds zero vectors."""
    batch = residual.shape[0]
    basis = residual.new_zeros(batch, memory + 1, residual.shape[1])
    hessenberg = residual.new_zeros(batch, memory + 1, memory)
    norm = torch.linalg.vector_norm(residual, dim=1)
    basis[:, 0] = _unit(residual, norm, norm)
    for k in range(memory):
        image = product(basis[:, k])
        size = torch.linalg.vector_norm(image, dim=1)
        for _ in range(2):  # twice is enough to stay orthogonal
            weights = torch.bmm(basis[:, : k + 1], image.unsqueeze(2))
            hessenberg[:, : k + 1, k] += weights.squeeze(2)
            image = image - torch.bmm(weights.transpose(1, 2), basis[:, : k + 1]).squeeze(1)
        hessenberg[:, k + 1, k] = torch.linalg.vector_norm(image, dim=1)
        basis[:, k + 1] = _unit(image, hessenberg[:, k + 1, k], size)
    target = residual.new_zeros(batch, memory + 1, 1)
    target[:, 0, 0] = norm
    usable = torch.isfinite(hessenberg).all(dim=2, keepdim=True).all(dim=1, keepdim=True)  # one NaN stops the batch's SVD
    weights = torch.linalg.pinv(torch.where(usable, hessenberg, 0.0)) @ target
    return torch.bmm(weights.transpose(1, 2), basis[:, :memory]).squeeze(1), memory


def _unit(vector: Tensor, norm: Tensor, size: Tensor) -> Tensor:
    """The vector at length 1, or 0 where it is rounding error beside ``size``."""
    real = norm > 10 * torch.finfo(vector.dtype).eps * size
    return torch.where(real.unsqueeze(1), vector / torch.where(real, norm, 1.0).unsqueeze(1), 0.0)
