"""What the autoencoders are made of: encoders, codes and explicit decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from jiio_lightning.models.interface import Solve


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
