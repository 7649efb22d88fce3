"""Equilibria as layers of an ordinary network: solved in passing, remembered for what is to be said about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from jiio_lightning.core.equilibrium import Backward, Cell, equilibrium
from jiio_lightning.core.solvers.base import FixedPoint, relative


@dataclass(frozen=True)
class SolvedLayer:
    """Where a layer z = f(z, x) was solved, outside any graph.

    Args:
        f: the cell.
        z: f at the last iterate of the solve ``(B, n)``.
        x: the layer's input ``(B, d)``.
    """

    f: Cell
    z: Tensor
    x: Tensor

    @cached_property
    @torch.no_grad()
    def image(self) -> Tensor:
        """f(z, x) ``(B, n)``."""
        return self.f(self.z, self.x)

    @property
    def gap(self) -> Tensor:
        """f(z, x) - z, ``(B, n)``: what the slowest modes of the solve left over."""
        return self.image - self.z

    @property
    def residual(self) -> Tensor:
        """||f(z, x) - z|| / ||f(z, x)||, ``(B,)``."""
        return relative(self.gap, self.image)


class Layers:
    """Solves the equilibria of one pass through a network and keeps where they are, in their order.

    Args:
        forward: method and budget of each solve.
        backward: how the gradient goes back through each (Eq. 7).
    """

    def __init__(self, forward: FixedPoint, backward: Backward) -> None:
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
