"""LightningModules: a task is its inner problem."""

from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.autoencoding import Autoencoding
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.classification import Classification
from jiio_lightning.tasks.generation import Generation
from jiio_lightning.tasks.inverse import Inverse
from jiio_lightning.tasks.latents import Deterministic, LatentRegularizer, Plain, Variational

__all__ = [
    "AdversarialTraining",
    "Autoencoding",
    "Classification",
    "Deterministic",
    "Generation",
    "Inverse",
    "JIIOTask",
    "LatentRegularizer",
    "Plain",
    "Variational",
]
