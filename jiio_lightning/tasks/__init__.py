"""LightningModules: a task is its inner problem."""

from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.autoencoding import Autoencoding
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.classification import Classification
from jiio_lightning.tasks.fewshot import MAML, ImplicitMAML, PrototypicalNetwork, Reptile
from jiio_lightning.tasks.generation import Generation
from jiio_lightning.tasks.inverse import Inverse
from jiio_lightning.tasks.latents import Deterministic, LatentRegularizer, Plain, Variational
from jiio_lightning.tasks.meta import MetaLearning

__all__ = [
    "AdversarialTraining",
    "Autoencoding",
    "Classification",
    "Deterministic",
    "Generation",
    "ImplicitMAML",
    "Inverse",
    "JIIOTask",
    "LatentRegularizer",
    "MAML",
    "MetaLearning",
    "Plain",
    "PrototypicalNetwork",
    "Reptile",
    "Variational",
]
