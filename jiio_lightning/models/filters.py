"""Filters of multiplicative filter networks: fixed-width functions of a coordinate, at most 1 in size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def phase(dims: int, width: int, scale: float) -> nn.Linear:
    """``U c + p`` with U ~ U(+-scale / sqrt(d)) and p ~ U(-pi, pi): the scale sets the highest frequency."""
    linear = nn.Linear(dims, width)
    nn.init.uniform_(linear.weight, -scale / math.sqrt(dims), scale / math.sqrt(dims))
    nn.init.uniform_(linear.bias, -math.pi, math.pi)
    return linear


class FourierFilter(nn.Module):
    """``g(c) = sin(U c + p)`` (Fathony et al. 2021).

    Example:
        >>> FourierFilter(2, 5, scale=8.0)(torch.zeros(7, 2)).shape
        torch.Size([7, 5])
    """

    def __init__(self, dims: int, width: int, scale: float) -> None:
        super().__init__()
        self.phase = phase(dims, width, scale)

    def forward(self, c: Tensor) -> Tensor:
        return torch.sin(self.phase(c))


class GaborFilter(nn.Module):
    r""":math:`g_j(c) = \sin(U_j c + p_j) \exp(-\gamma_j \|c - \mu_j\|^2 / 2)` (Fathony et al. 2021).

    Args:
        dims: width d of a coordinate.
        width: filters D.
        scale: of the frequencies, which also grow with sqrt(gamma).
        alpha: shape of the Gamma distribution of gamma, of rate 1; the centres are uniform in [-1, 1]^d.

    Example:
        >>> filters = GaborFilter(2, 5, scale=8.0, alpha=1.5)
        >>> bool((filters(torch.rand(7, 2)).abs() <= 1).all())
        True
    """

    def __init__(self, dims: int, width: int, scale: float, alpha: float) -> None:
        super().__init__()
        self.phase = phase(dims, width, scale)
        self.centre = nn.Parameter(torch.empty(width, dims).uniform_(-1, 1))
        gamma = torch.distributions.Gamma(alpha, 1.0).sample((width,))
        self.gamma = nn.Parameter(gamma)
        with torch.no_grad():
            self.phase.weight.mul_(gamma.sqrt().unsqueeze(1))

    def forward(self, c: Tensor) -> Tensor:
        squares = c.square().sum(1, keepdim=True) + self.centre.square().sum(1) - 2 * c @ self.centre.mT
        # never above 1, whatever training and rounding do: the contraction rests on it
        return torch.sin(self.phase(c)) * torch.exp(-0.5 * self.gamma.abs() * squares.clamp_min(0))
