"""Implicit representations: a signal as a function of its coordinates, by explicit networks and by equilibria.

(Implicit)^2: Implicit Layers for Implicit Representations (Huang, Bai and Kolter, NeurIPS 2021). A coordinate is c ``(d,)``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from jiio_lightning.models.filters import FourierFilter, GaborFilter, phase
from jiio_lightning.models.interface import CoordinateNet, Solve
from jiio_lightning.models.lipschitz import bounded

BOUND = 0.97
"""Spectral norm of each weight of an implicit cell (released code)."""


class FilterNet(CoordinateNet):
    r"""What the paper's nets share: a cell of L layers that sees the coordinate through L + 1 filters, and a linear head.

    .. math:: f(z, g) = \phi_L(\dots \phi_1(z + g_0, g_1) \dots, g_L), \qquad y = C z + d

    An *implicit* net takes its z at the equilibrium z = f(z, g), an explicit one at f(0, g). Filters depend on the coordinate
    alone: one signal computes them once a solve, and they are what the cell calls x. In mixed precision they stay in float32: a
    phase of hundreds has no digits left in bfloat16.

    Args:
        dims: width d of a coordinate.
        channels: of a value.
        width: D of z and of each filter.
        layers: L.
        scale: of the filters' frequencies, before it is divided by sqrt(L + 1).
        bound: on the spectral norm of each W; None leaves them free. With one, and filters of at most 1, f is Lipschitz in z with
            constant ``bound^L``: below 1 there is one equilibrium, and plain iteration finds it.

    Raises:
        ValueError: for no layer, or a bound that is not positive.
    """

    implicit = False

    def __init__(self, dims: int, channels: int, width: int, layers: int, scale: float, bound: float | None) -> None:
        super().__init__()
        if layers < 1 or (bound is not None and bound <= 0):
            raise ValueError(f"{type(self).__name__} needs layers >= 1 and bound > 0 or null, got {layers} and {bound}")
        self.dims = dims
        self.channels = channels
        self.width = width
        scale = scale / math.sqrt(layers + 1)
        self.filters = nn.ModuleList(self.filter(i, layers, scale) for i in range(layers + 1))
        self.linears = nn.ModuleList(bounded(_linear(width), bound) for _ in range(layers))
        self.head = nn.Linear(width, channels)

    @abstractmethod
    def filter(self, place: int, layers: int, scale: float) -> nn.Module:
        """Filter number ``place`` of ``0 .. L``, coordinates ``(N, d)`` to ``(N, D)``; number 0 is added to z."""

    @abstractmethod
    def activate(self, a: Tensor, g: Tensor) -> Tensor:
        """A layer's output ``(..., D)`` from ``W z + b`` and its filter."""

    def inject(self, c: Tensor) -> Tensor:
        """All filters ``(N, (L + 1) D)`` of coordinates ``(N, d)``."""
        with torch.autocast(c.device.type, enabled=False):
            return torch.cat([filter(c) for filter in self.filters], dim=-1)

    def f(self, z: Tensor, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """The cell: z ``(..., D)`` and filters ``(..., (L + 1) D)`` to ``(..., D)``; shift is added to the first ``W z + b``."""
        first, *others = x.split(self.width, dim=-1)
        z = z + first
        for place, (linear, g) in enumerate(zip(self.linears, others, strict=True)):
            a = linear(z)
            z = self.activate(a if shift is None or place else a + shift, g)
        return z

    def h(self, z: Tensor) -> Tensor:
        """Values ``(..., C)`` of z ``(..., D)``."""
        return self.head(z)

    def values(self, c: Tensor, solve: Solve) -> Tensor:
        x = self.inject(c)
        return self.h(solve(self.f, x, self.width) if self.implicit else self.f(x.new_zeros(()), x))

    @torch.no_grad()
    def lipschitz(self) -> float | None:
        """A bound on the Lipschitz constant of f in z, by exact singular values; None for an explicit net."""
        if not self.implicit:
            return None
        return math.prod(float(torch.linalg.matrix_norm(linear.weight, 2)) for linear in self.linears)


class MFN(FilterNet):
    """Multiplicative filter network (Fathony et al. 2021): ``phi(z, g) = (W z + b) * g`` with Fourier or Gabor filters.

    Args:
        alpha: shape of the Gamma distribution of the Gabor filters' width, divided by L + 1 (released code: 3; MFN's own: 6).

    The others are those of FilterNet. The released code bounds the explicit nets of its image tables as well (``bound: 0.97``).

    Example:
        >>> net = MFN(dims=2, channels=3, width=8, layers=2, filters="gabor")
        >>> net.values(torch.zeros(5, 2), solve=None).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dims: int = 2,
        channels: int = 3,
        width: int = 256,
        layers: int = 1,
        scale: float = 128.0,
        filters: Literal["fourier", "gabor"] = "fourier",
        alpha: float = 3.0,
        bound: float | None = None,
    ) -> None:
        self.kind, self.alpha = filters, alpha
        super().__init__(dims, channels, width, layers, scale, bound)

    def filter(self, place: int, layers: int, scale: float) -> nn.Module:
        if self.kind == "gabor":
            return GaborFilter(self.dims, self.width, scale, self.alpha / (layers + 1))
        return FourierFilter(self.dims, self.width, scale)

    def activate(self, a: Tensor, g: Tensor) -> Tensor:
        return a * g


class IMFN(MFN):
    r"""The implicit MFN: z = (W (z + g_0) + b) * g_1 for one layer, which is affine in z.

    Example:
        >>> from jiio_lightning.core.layers import Layers
        >>> from jiio_lightning.core.solvers import FixedPoint, Picard
        >>> layers = Layers(FixedPoint(Picard(), 60), FixedPoint(Picard(), 60))
        >>> net = IMFN(dims=1, channels=1, width=8)
        >>> net.values(torch.zeros(5, 1), layers).shape, net.lipschitz() < 0.98
        (torch.Size([5, 1]), True)
    """

    implicit = True

    def __init__(
        self,
        dims: int = 2,
        channels: int = 3,
        width: int = 256,
        layers: int = 1,
        scale: float = 128.0,
        filters: Literal["fourier", "gabor"] = "fourier",
        alpha: float = 3.0,
        bound: float | None = BOUND,
    ) -> None:
        super().__init__(dims, channels, width, layers, scale, filters, alpha, bound)


class InjectedSIREN(FilterNet):
    """SIREN with input injection: ``phi(z, a) = sin(W z + b + a)``, where a = U c + p and g_0 = sin(U_0 c + p_0).

    Example:
        >>> InjectedSIREN(dims=2, channels=3, width=8, layers=2).values(torch.zeros(5, 2), solve=None).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        dims: int = 2,
        channels: int = 3,
        width: int = 256,
        layers: int = 1,
        scale: float = 128.0,
        bound: float | None = None,
    ) -> None:
        super().__init__(dims, channels, width, layers, scale, bound)

    def filter(self, place: int, layers: int, scale: float) -> nn.Module:
        return phase(self.dims, self.width, scale) if place else FourierFilter(self.dims, self.width, scale)

    def activate(self, a: Tensor, g: Tensor) -> Tensor:
        return torch.sin(a + g)


class ISIREN(InjectedSIREN):
    """The implicit SIREN: z = sin(W (z + g_0) + b + a_1) for one layer.

    Example:
        >>> ISIREN(dims=2, channels=3, width=8, layers=4).lipschitz() <= 0.98**4
        True
    """

    implicit = True

    def __init__(
        self,
        dims: int = 2,
        channels: int = 3,
        width: int = 256,
        layers: int = 1,
        scale: float = 128.0,
        bound: float | None = BOUND,
    ) -> None:
        super().__init__(dims, channels, width, layers, scale, bound)


def _linear(width: int) -> nn.Linear:
    """W ~ U(+-1 / sqrt(D)), torch's bias (released code)."""
    linear = nn.Linear(width, width)
    nn.init.uniform_(linear.weight, -(width**-0.5), width**-0.5)
    return linear
