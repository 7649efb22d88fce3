"""LightningModules: a task is its inner problem; Representation has none."""

from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.generation import Generation
from jiio_lightning.tasks.inverse import Inverse
from jiio_lightning.tasks.meta import MetaLearning
from jiio_lightning.tasks.representation import Representation
from jiio_lightning.tasks.warm_start import WarmStart

__all__ = ["AdversarialTraining", "Generation", "Inverse", "JIIOTask", "MetaLearning", "Representation", "WarmStart"]
