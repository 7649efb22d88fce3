"""Equilibria as layers of an ordinary network: solved in the forward pass, remembered for what is to be said about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell, equilibrium
from jiio_lightning.core.solvers.base import FixedPoint, relative


@dataclass(frozen=True)
class SolvedLayer:
    """Where a layer z = f(z, x) was solved, outside any graph.

    Example:
        >>> layer = SolvedLayer(lambda z, x: z / 2 + x, z=torch.tensor([[1.0]]), x=torch.tensor([[1.0]]))
        >>> layer.gap.item(), layer.residual.item()  # f is 3/2 there
        (0.5, 0.3333)
    """

    f: Cell
    z: Tensor  # f at the last iterate of the solve (B, n)
    x: Tensor  # the layer's input (B, d)

    @cached_property  # the gap and the residual share one evaluation
    @torch.no_grad()
    def fz(self) -> Tensor:
        """f(z, x) ``(B, n)``."""
        return self.f(self.z, self.x)

    @property
    def gap(self) -> Tensor:
        """f(z, x) - z, ``(B, n)``: what the slowest modes of the solve left over."""
        return self.fz - self.z

    @property
    def residual(self) -> Tensor:
        """||f(z, x) - z|| / ||f(z, x)||, ``(B,)``."""
        return relative(self.gap, self.fz)


class Layers:
    """Solves the equilibria of one pass through a network and remembers where they are, in their order.
    ``backward`` solves the adjoint of each, through which the gradient goes back (Eq. 7).

    Example:
        >>> from jiio_lightning.core.solvers import Picard
        >>> layers = Layers(forward=FixedPoint(Picard(), 40), backward=FixedPoint(Picard(), 40))
        >>> z = layers(lambda z, x: z / 2 + x, torch.ones(1, 1), hidden=1)
        >>> layers(lambda z, x: z / 3 + x, z, hidden=1).item()  # z = 2, and 3/2 of that
        3.0
        >>> len(layers.solved), layers.residual(z).item() < 1e-6
        (2, True)
    """

    def __init__(self, forward: FixedPoint, backward: FixedPoint) -> None:
        self.forward = forward
        self.backward = backward
        self.solved: list[SolvedLayer] = []

    def __call__(self, f: Cell, x: Tensor, hidden: int) -> Tensor:
        """z of width ``hidden`` (n) at the layer's input x ``(B, d)``, started at 0: ``(B, n)`` with its graph."""
        z = equilibrium(f, x, x.new_zeros(x.shape[0], hidden), self.forward, self.backward)
        self.solved.append(SolvedLayer(f, z.detach(), x.detach()))
        return z

    def residual(self, samples: Tensor) -> Tensor:
        """The largest residual of each sample's layers ``(B,)``; 0 without any. ``samples`` is a batch, for its size."""
        none = samples.new_zeros(len(samples))
        return torch.stack([none, *(layer.residual for layer in self.solved)]).amax(dim=0)
