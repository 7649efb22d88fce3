"""What a task asks of a network: subclass one of these to plug in your own f and h."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """A DEQ that makes images from a latent vector x.

    Args (attributes that a subclass sets):
        latent: width d of x.
        image_shape: ``(C, H, W)``.
    """

    latent: int
    image_shape: tuple[int, int, int]

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Width n of z."""

    @abstractmethod
    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """The cell driven by the latent: ``(B, n), (B, d) -> (B, n)`` (Eq. 3)."""

    @abstractmethod
    def h(self, z: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] from z ``(B, n)`` (Eq. 20)."""
