"""What a task asks of a network: subclass one of these to plug in your own f and h."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from jiio_lightning.core.equilibrium import Cell


class Solve(Protocol):
    """Solves a layer that is an equilibrium, for networks that are used directly and not through an inner problem."""

    def __call__(self, f: Cell, x: Tensor, hidden: int) -> Tensor:
        """``z = f(z, x)`` of width ``hidden`` (n) for the layer's input x: ``(B, n)``, differentiable in x and the weights."""


class Generator(nn.Module, ABC):
    """A DEQ that makes images from a latent vector x.

    Example:
        >>> import torch
        >>> class Flat(Generator):
        ...     latent, image_shape, hidden = 2, (1, 4, 4), 16
        ...     def f(self, z, x):
        ...         return 0.5 * z + x.mean(1, keepdim=True)
        ...     def h(self, z):
        ...         return z.tanh().view(-1, *self.image_shape)
        >>> Flat().decode(torch.ones(3, 2), lambda f, x, hidden: f(torch.zeros(3, hidden), x)).shape
        torch.Size([3, 1, 4, 4])
    """

    latent: int  # width d of x
    image_shape: tuple[int, int, int]  # (C, H, W)

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

    def decode(self, x: Tensor, solve: Solve) -> Tensor:
        """Images ``(B, C, H, W)`` of latents ``(B, d)``: h at the equilibrium of f."""
        return self.h(solve(self.f, x, self.hidden))


class CoordinateNet(nn.Module, ABC):
    """A signal as a function of its coordinates, explicit or through an equilibrium.

    Example:
        >>> import torch
        >>> class Ramp(CoordinateNet):
        ...     dims, channels = 1, 1
        ...     def values(self, c, solve):
        ...         return solve(lambda z, c: z / 2 + c, c, 1)
        >>> Ramp().values(torch.ones(3, 1), lambda f, x, hidden: f(torch.zeros(3, hidden), x)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    dims: int  # width d of a coordinate, each in [-1, 1]
    channels: int  # of a value
    implicit = True  # whether ``values`` solves an equilibrium

    @abstractmethod
    def values(self, c: Tensor, solve: Solve) -> Tensor:
        """Values ``(N, C)`` at coordinates ``(N, d)``; ``solve`` solves the equilibrium of an implicit net."""

    def lipschitz(self) -> float | None:
        """A bound on the Lipschitz constant of the cell in z: below 1 it is a contraction. None for a net without a cell."""
        return None


class Classifier(nn.Module, ABC):
    """A DEQ that names the class of an image x.

    Example:
        >>> import torch
        >>> class Brightness(Classifier):
        ...     num_classes, image_shape, hidden = 2, (1, 4, 4), 1
        ...     def f(self, z, x):
        ...         return 0.5 * z + x.mean(1, keepdim=True)
        ...     def h(self, z):
        ...         return torch.cat([1 - z, z], dim=1)
        >>> net, image = Brightness(), torch.ones(1, 16)
        >>> net.h(torch.full((1, 1), 2.0)).argmax(1).item(), net.f(torch.full((1, 1), 2.0), image).item()
        (1, 2.0)
    """

    num_classes: int  # width of the logits
    image_shape: tuple[int, int, int]  # (C, H, W)

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Width n of z."""

    @abstractmethod
    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """The cell driven by the image: ``(B, n), (B, C * H * W) -> (B, n)`` (Eq. 26)."""

    @abstractmethod
    def h(self, z: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` from z ``(B, n)``."""


class ConditionalClassifier(nn.Module, ABC):
    """A DEQ that names the class of an image, and that a task vector x adapts to what the classes are.

    Example:
        >>> import torch
        >>> class Shifted(ConditionalClassifier):
        ...     task, num_classes, image_shape, hidden = 1, 2, (1, 4, 4), 1
        ...     def inject(self, image):
        ...         return image.flatten(1).mean(1, keepdim=True)
        ...     def f(self, z, x, injection):
        ...         return 0.5 * z + injection + x
        ...     def h(self, z, x):
        ...         return torch.cat([1 - z, z], dim=1)
        >>> net = Shifted()
        >>> net.f(torch.zeros(3, 1), torch.ones(3, 1), net.inject(torch.ones(3, 1, 4, 4))).flatten().tolist()
        [2.0, 2.0, 2.0]
    """

    task: int  # width d of x
    num_classes: int  # width of the logits, the N of N-way tasks
    image_shape: tuple[int, int, int]  # (C, H, W)

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Width n of the z of one image."""

    def summary(self, z: Tensor) -> Tensor:
        """What of z ``(B, n)`` a start of task vectors is regressed from ``(B, k)``: all of it unless a net says otherwise."""
        return z

    @abstractmethod
    def inject(self, image: Tensor) -> Tensor:
        """What the cell takes from images ``(B, C, H, W)``, ``(B, m)``: it does not depend on x, and is computed once a solve."""

    @abstractmethod
    def f(self, z: Tensor, x: Tensor, injection: Tensor) -> Tensor:
        """The cell (Eq. 29): z ``(B, n)``, the vector of each image's task ``(B, d)``, injection ``(B, m)`` to ``(B, n)``."""

    @abstractmethod
    def h(self, z: Tensor, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` from z ``(B, n)`` and the vector of each image's task ``(B, d)``."""
