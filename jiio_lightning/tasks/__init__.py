"""LightningModules: a task is its inner problem."""

from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.generation import Generation
from jiio_lightning.tasks.inverse import Inverse
from jiio_lightning.tasks.meta import MetaLearning

__all__ = ["AdversarialTraining", "Generation", "Inverse", "JIIOTask", "MetaLearning"]
