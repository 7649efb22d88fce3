"""The start of latents: the inner problem of a linear model of the net, solved exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jiio_lightning.starts.base import LearnedStart

JITTER = 1e-6
"""Share of the latents' mean variance that is added to each variance: a latent that never moves gets a finite precision."""


class LinearDecoder(LearnedStart):
    r"""Latents and equilibria of images, or of linear measurements of them, by a linear model of the net.

    .. math:: y \approx A x + b + \varepsilon, \quad z^*(x) \approx Z x + c, \quad
              x \sim \mathcal{N}(m, \Sigma), \quad \varepsilon \sim \mathcal{N}(0, \sigma^2 I)

    A, b, Z and c are least squares over solved images, m and :math:`\Sigma` the moments of their latents. For a measurement
    :math:`\hat y = M y` the start is the inner problem (Eq. 20, 22) of the linear model, with a ridge that the latents give:

    .. math:: x_0 = \arg\min_x \| \hat y - M (A x + b) \|^2 + \sigma^2 (x - m)^\top \Sigma^{-1} (x - m), \quad z_0 = Z x_0 + c

    For the image itself, and for pixels that are left out, this is the mode of the posterior. Another M, and noise of the
    measurement, would weigh the ridge differently, which does not matter for a start. One fit serves every M.

    Args:
        latent: d. A fit needs at least 2 (d + 1) solved images.
    """

    columns: Tensor
    """A and b as images ``(d + 1, C, H, W)``."""
    states: Tensor
    """Z and c ``(d + 1, n)``."""
    mean: Tensor
    """m ``(d,)``."""
    penalty: Tensor
    """sigma^2 Sigma^-1 ``(d, d)``."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.least = 2 * (latent + 1)

    def regress(self, *, x: Tensor, z: Tensor, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """From latents ``(N, d)`` (a ValueError if all are the same), equilibria ``(N, n)`` and images ``(N, C, H, W)``."""
        # From latents to images: a regression from pixels straight to latents is a little better, but knows one measurement only.
        inputs = _with_one(x.double())
        columns = torch.linalg.lstsq(inputs, image.flatten(1).double()).solution
        states = torch.linalg.lstsq(inputs, z.double()).solution
        noise = (image.flatten(1) - inputs @ columns).square().mean() * len(x) / (len(x) - inputs.shape[1])  # degrees of freedom
        covariance = torch.cov(x.double().T).reshape(x.shape[1], x.shape[1])
        if not float(covariance.diagonal().max()) > 0:
            raise ValueError("the solves have left all latents where they started: give the solver more steps")
        jitter = JITTER * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64, device=x.device)
        return {
            "columns": columns.unflatten(1, image.shape[1:]).to(x),
            "states": states.to(x),
            "mean": x.mean(dim=0),
            "penalty": (noise * torch.linalg.inv(covariance + jitter)).to(x),
        }

    def forward(self, y: Tensor, measure: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """x ``(B, d)`` and z ``(B, n)`` of measurements y ``(B, ...)``.

        ``measure`` is M, images ``(B, C, H, W)`` to the shape of y, the image itself unless given. With M there are B (d + 1)
        measurements in memory.
        """
        if measure is None:  # one linear system for the whole batch
            seen = self.columns.flatten(1).unsqueeze(0)
        else:
            batch = (len(y), *self.columns.shape[1:])
            seen = torch.stack([measure(column.expand(batch)).flatten(1) for column in self.columns], dim=1)
        slopes, offset = seen[:, :-1], seen[:, -1]
        gap = y.flatten(1) - offset - torch.einsum("d,bdm->bm", self.mean, slopes)
        pulled = (slopes @ gap.unsqueeze(2)).squeeze(2)
        normal = slopes @ slopes.transpose(1, 2) + self.penalty
        x = self.mean + torch.linalg.solve(normal, pulled.unsqueeze(2)).squeeze(2)
        # z matters as much as x: with z = 0 the cost after 8 steps was 54.1, with both 52.1 (results/frontier_notes.md).
        return x, _with_one(x) @ self.states


def _with_one(x: Tensor) -> Tensor:
    """x ``(N, d)`` and a column of ones behind it."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
