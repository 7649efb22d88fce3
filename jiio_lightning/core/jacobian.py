"""The stability of the equilibrium: Hutchinson's penalty (Eq. 27), a hinge on the leading mode, the spectral radius of J_z."""

from __future__ import annotations

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell, Linearisation


def jacobian_penalty(f: Cell, z: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    r"""Hutchinson's estimate of the squared Frobenius norm of :math:`J_z`, per element of z (Eq. 27).

    .. math:: \frac{1}{B n} \, \mathbb{E}_{\epsilon \sim \mathcal{N}(0, I)} \| J_z^\top \epsilon \|^2

    :math:`\epsilon^\top J J^\top \epsilon` has the expectation of the paper's :math:`\epsilon^\top J^\top J \epsilon` and needs
    one backward pass. The division by the number of elements is the released code's, which its coefficients (0.1, 2, 0.01,
    0.5) mean.

    Args:
        f: the cell.
        z: where J_z is taken ``(B, n)``.
        x: ``(B, d)``.
        probes: standard normal, ``(P, B, n)``, one backward pass for each of the P.

    Returns:
        A scalar with a graph to the weights of f.
    """
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        image = f(z, x.detach())
        pulls = [torch.autograd.grad(image, z, probe, create_graph=True, materialize_grads=True)[0] for probe in probes]
    return torch.stack([pull.square().mean() for pull in pulls]).mean()


def mode_penalty(f: Cell, z: Tensor, x: Tensor, probe: Tensor, steps: int = 3, ceiling: float = 0.7) -> Tensor:
    r"""A hinge on how much :math:`J_z^\top` stretches its leading mode u.

    .. math:: \frac{1}{B} \sum \max(0, \| J_z^\top u \|^2 - c^2), \qquad u \approx \arg\max \| J_z^\top u \| / \| u \|

    Eq. 27 is a mean over all n directions and hardly sees the one that makes the equilibrium unstable: in runs with a mean square
    of 0.07 the spectral radius passed 1. This sees that direction alone, and costs nothing while the equilibrium is stable.

    Args:
        f: the cell.
        z: an equilibrium ``(B, n)``.
        x: ``(B, d)``.
        probe: where the power iteration starts ``(B, n)``: dL/dz at the end of a joint solve is what its slowest modes left over.
        steps: of the power iteration, one backward pass each.
        ceiling: c, the stretch that is free of charge.

    Returns:
        A scalar with a graph to the weights of f.
    """
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        image = f(z, x.detach())
        mode = probe.detach()
        for _ in range(steps):
            (mode,) = torch.autograd.grad(image, z, _unit(mode), retain_graph=True, materialize_grads=True)
        mode = _unit(mode)
        (pulled,) = torch.autograd.grad(image, z, mode, create_graph=True, materialize_grads=True)
    return (pulled.square().sum(dim=1) - ceiling**2).clamp_min(0).mean()


def _unit(vector: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one."""
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
    return vector / norm.clamp_min(torch.finfo(vector.dtype).tiny ** 0.5)


def spectral_radius(f: Cell, z: Tensor, x: Tensor, probe: Tensor, steps: int = 40) -> Tensor:
    r"""Spectral radius of :math:`J_z` for each sample by power iteration.

    A dominant pair of complex eigenvalues makes single growth factors swing: the result is their geometric mean over the
    second half.

    Args:
        f: the cell.
        z: ``(B, n)``.
        x: ``(B, d)``.
        probe: random start ``(B, n)``.
        steps: backward passes.

    Returns:
        ``(B,)``; below 1 the plain iteration (Eq. 4) converges locally.
    """
    at, growth = Linearisation(f, z, x), []
    tiny = torch.finfo(z.dtype).tiny
    for _ in range(steps):
        unit = probe / torch.linalg.vector_norm(probe, dim=1, keepdim=True).clamp_min(tiny)
        probe = at.pull_z(unit)
        growth.append(torch.linalg.vector_norm(probe, dim=1).clamp_min(tiny).log())
    return torch.stack(growth[steps // 2 :]).mean(dim=0).exp()
