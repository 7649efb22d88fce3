"""Learned starts: where the solves of a trained net begin, regressed from problems that are solved already."""

from jiio_lightning.starts.base import LearnedStart
from jiio_lightning.starts.class_perturbation import ClassPerturbation
from jiio_lightning.starts.linear_decoder import LinearDecoder
from jiio_lightning.starts.task_vector import TaskVector

__all__ = ["ClassPerturbation", "LearnedStart", "LinearDecoder", "TaskVector"]
