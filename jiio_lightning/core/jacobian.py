"""The stability of the equilibrium: Hutchinson's penalty (Eq. 27) and a hinge on the leading mode of J_z."""

from __future__ import annotations

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell


def jacobian_penalty(f: Cell, z: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    r"""Hutchinson's estimate of the squared Frobenius norm of :math:`J_z`, per element of z (Eq. 27).

    .. math:: \frac{1}{B n} \, \mathbb{E}_{\epsilon \sim \mathcal{N}(0, I)} \| J_z^\top \epsilon \|^2

    :math:`\epsilon^\top J J^\top \epsilon` has the expectation of the paper's :math:`\epsilon^\top J^\top J \epsilon` and needs
    one backward pass. The division by the number of elements is the released code's, which its coefficients (0.1, 2, 0.01,
    0.5) mean. J_z is taken at z ``(B, n)``, x ``(B, d)``; each of the P standard normal probes ``(P, B, n)`` takes one backward
    pass. The result is a scalar with a graph to the weights of f.

    Example:
        >>> jacobian_penalty(lambda z, x: 0.5 * z + x, torch.zeros(4, 3), torch.zeros(4, 3), probes=torch.ones(1, 4, 3)).item()
        0.25
    """
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        fz = f(z, x.detach())
        pulls = [torch.autograd.grad(fz, z, probe, create_graph=True, materialize_grads=True)[0] for probe in probes]
    return torch.stack([pull.square().mean() for pull in pulls]).mean()


def mode_penalty(f: Cell, z: Tensor, x: Tensor, probe: Tensor, steps: int = 3, ceiling: float = 0.7) -> Tensor:
    r"""A hinge on how much :math:`J_z^\top` stretches its leading mode u.

    .. math:: \frac{1}{B} \sum \max(0, \| J_z^\top u \|^2 - c^2), \qquad u \approx \arg\max \| J_z^\top u \| / \| u \|

    Eq. 27 is a mean over all n directions and hardly sees the one that makes the equilibrium unstable: in runs with a mean square
    of 0.07 the spectral radius passed 1. This sees that direction alone, and is 0 while the equilibrium is stable.

    Args:
        f: the cell; the result is a scalar with a graph to its weights.
        z: an equilibrium ``(B, n)`` at x ``(B, d)``.
        probe: where the power iteration starts ``(B, n)``: dL/dz at the end of a joint solve is what its slowest modes left over.
        steps: of the power iteration, one backward pass each.
        ceiling: c, the stretch that is free of charge.

    Example:
        One unstable direction of two: its stretch of 1.5 is penalised, 1.5^2 - 0.7^2.

        >>> def f(z: Tensor, x: Tensor) -> Tensor:
        ...     return z * torch.tensor([1.5, 0.1]) + x
        >>> mode_penalty(f, torch.zeros(1, 2), torch.zeros(1, 2), probe=torch.ones(1, 2), steps=5).item()
        1.76
    """
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        fz = f(z, x.detach())
        mode = probe.detach()
        for _ in range(steps):
            (mode,) = torch.autograd.grad(fz, z, _unit(mode), retain_graph=True, materialize_grads=True)
        mode = _unit(mode)  # a constant: only its stretch is differentiated
        (pulled,) = torch.autograd.grad(fz, z, mode, create_graph=True, materialize_grads=True)
    return (pulled.square().sum(dim=1) - ceiling**2).clamp_min(0).mean()


def _unit(vector: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one."""
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector / norm.clamp_min(torch.finfo(vector.dtype).tiny ** 0.5)
