"""LightningModules: a task is its inner problem."""

from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.generation import Generation

__all__ = ["Generation", "JIIOTask"]
