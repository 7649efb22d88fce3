"""Coordinate networks that the paper leaves out of its tables: plain SIREN, and a ReLU network of Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from jiio_lightning.models.interface import CoordinateNet, Solve


class SIREN(CoordinateNet):
    """Sines all the way (Sitzmann et al. 2020): ``h = sin(omega (W h + b))`` from the coordinate on, and a linear head.

    Args:
        dims: width d of a coordinate.
        channels: of a value.
        width: of each layer.
        layers: hidden ones, the first included (images: 1 + 3 of 256).
        omega: 30 in the paper; WIRE's authors find 80 far better on images.

    Example:
        >>> SIREN(dims=2, channels=3, width=8, layers=2).values(torch.zeros(5, 2), solve=None).shape
        torch.Size([5, 3])
    """

    implicit = False

    def __init__(self, dims: int = 2, channels: int = 3, width: int = 256, layers: int = 4, omega: float = 30.0) -> None:
        super().__init__()
        self.dims, self.channels, self.omega = dims, channels, omega
        self.hidden = nn.ModuleList(nn.Linear(width if place else dims, width) for place in range(layers))
        self.head = nn.Linear(width, channels)
        for place, linear in enumerate([*self.hidden, self.head]):
            bound = math.sqrt(6 / width) / omega if place else 1 / dims
            nn.init.uniform_(linear.weight, -bound, bound)

    def values(self, c: Tensor, solve: Solve) -> Tensor:
        with torch.autocast(c.device.type, enabled=False):  # phases: see FilterNet
            for linear in self.hidden:
                c = torch.sin(self.omega * linear(c))
        return self.head(c)


class FourierFeatures(CoordinateNet):
    r"""A ReLU network of fixed random Fourier features (Tancik et al. 2020): :math:`[\sin(\pi B c), \cos(\pi B c)]`.

    Its coordinates span [-1, 1], twice those of the paper, hence pi in the place of 2 pi; its sigmoid is here on [-1, 1].

    Args:
        dims: width d of a coordinate.
        channels: of a value.
        width: of each hidden layer.
        layers: linear ones, the head included (the paper's 4 have 3 hidden ones).
        frequencies: rows of B.
        sigma: standard deviation of B (the paper's best for natural images 10, for text 14).

    Example:
        >>> FourierFeatures(dims=2, channels=3).values(torch.zeros(5, 2), solve=None).shape
        torch.Size([5, 3])
    """

    implicit = False
    basis: Tensor  # B (frequencies, d)

    def __init__(
        self,
        dims: int = 2,
        channels: int = 3,
        width: int = 256,
        layers: int = 4,
        frequencies: int = 256,
        sigma: float = 10.0,
    ) -> None:
        super().__init__()
        self.dims, self.channels = dims, channels
        self.register_buffer("basis", sigma * torch.randn(frequencies, dims))
        widths = [2 * frequencies, *[width] * (layers - 1)]
        hidden = [part for i, o in zip(widths, widths[1:], strict=False) for part in (nn.Linear(i, o), nn.ReLU())]
        self.network = nn.Sequential(*hidden, nn.Linear(widths[-1], channels))
        for part in self.network:
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)

    def values(self, c: Tensor, solve: Solve) -> Tensor:
        with torch.autocast(c.device.type, enabled=False):  # phases: see FilterNet
            angle = math.pi * c @ self.basis.mT
        return torch.tanh(self.network(torch.cat([angle.sin(), angle.cos()], dim=-1)) / 2)
