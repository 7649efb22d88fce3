"""What a task asks of a network: subclass one of these to plug in your own f and h."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from jiio_lightning.core.equilibrium import Cell


class Solve(Protocol):
    """Solves a layer that is an equilibrium, for networks that are used directly and not through an inner problem."""

    def __call__(self, f: Cell, x: Tensor, hidden: int) -> Tensor:
        """``z = f(z, x)`` of width ``hidden`` (n) for the layer's input x: ``(B, n)``, differentiable in x and the weights."""


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

    def decode(self, x: Tensor, solve: Solve) -> Tensor:
        """Images ``(B, C, H, W)`` of latents ``(B, d)``: h at the equilibrium of f."""
        return self.h(solve(self.f, x, self.hidden))


@dataclass(frozen=True)
class Code:
    """What an encoder says of the latents of its images.

    Args:
        mean: the latents, or the means of their posteriors ``(B, d)``.
        log_variance: of the posteriors, normal with a diagonal covariance ``(B, d)``; None where the encoder gives points.
    """

    mean: Tensor
    log_variance: Tensor | None = None


class Encoder(nn.Module, ABC):
    """A network from images to latents.

    Args (attributes that a subclass sets):
        latent: width d of the latents.
        variational: whether it gives a variance to each latent.
        image_shape: ``(C, H, W)``.
    """

    latent: int
    variational: bool
    image_shape: tuple[int, int, int]

    @property
    def outputs(self) -> int:
        """Numbers that the network makes of an image: d, or 2 d with the logarithms of the variances behind the means."""
        return self.latent * (2 if self.variational else 1)

    @abstractmethod
    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """Images ``(B, C, H, W)`` to ``(B, outputs)``; ``solve`` is for what is an equilibrium on the way."""

    def forward(self, image: Tensor, solve: Solve) -> Code:
        """Images ``(B, C, H, W)`` to their code."""
        return Code(*self.numbers(image, solve).split(self.latent, dim=1))


class Decoder(nn.Module, ABC):
    """An explicit network from latents to images.

    Args (attributes that a subclass sets):
        latent: width d of the latents.
        image_shape: ``(C, H, W)``.
    """

    latent: int
    image_shape: tuple[int, int, int]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Latents ``(B, d)`` to images ``(B, C, H, W)`` in [-1, 1]."""


class Classifier(nn.Module, ABC):
    """A DEQ that names the class of an image x.

    Args (attributes that a subclass sets):
        num_classes: width of the logits.
        image_shape: ``(C, H, W)``.
    """

    num_classes: int
    image_shape: tuple[int, int, int]

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

    Args (attributes that a subclass sets):
        task: width d of x.
        num_classes: width of the logits, the N of N-way tasks.
        image_shape: ``(C, H, W)``.
    """

    task: int
    num_classes: int
    image_shape: tuple[int, int, int]

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
