"""The stability of the equilibrium: Hutchinson's penalty (Eq. 27) and the spectral radius of J_z."""

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
        pulls = [torch.autograd.grad(image, z, probe, create_graph=True)[0] for probe in probes]
    return torch.stack([pull.square().mean() for pull in pulls]).mean()


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
