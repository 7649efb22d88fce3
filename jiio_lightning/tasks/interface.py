"""What callbacks and commands ask of a module, whether it has an inner problem or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor

from jiio_lightning.models.interface import Generator


class Regularised(LightningModule):
    """A module whose training step adds the penalty that the JacobianRegularization callback injects."""

    regularizer: Any = None


class LatentModel(ABC):
    """A module with a latent for each image: it is sampled, compared with PCA and judged by Frechet distances.

    Attributes:
        net: from latents to images.
        normal_latents: whether its latents follow N(0, I), as those of a VAE do.
    """

    net: Generator
    normal_latents: bool = False

    @abstractmethod
    def encode(self, batch: Any) -> Tensor:
        """Latents ``(B, d)`` of the batch's images."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] of latents ``(B, d)``."""

    @abstractmethod
    def reconstruct(self, batch: Any) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] of the batch's own latents."""
