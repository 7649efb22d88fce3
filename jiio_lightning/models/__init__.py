"""Networks that are equilibria: their cells, heads and injections."""

from jiio_lightning.models.classifier import ImageClassifier
from jiio_lightning.models.conditioned import FiLMClassifier
from jiio_lightning.models.generator import LatentGenerator
from jiio_lightning.models.interface import Classifier, ConditionalClassifier, Generator, Solve
from jiio_lightning.models.mdeq import MDEQCell

__all__ = [
    "Classifier",
    "ConditionalClassifier",
    "FiLMClassifier",
    "Generator",
    "ImageClassifier",
    "LatentGenerator",
    "MDEQCell",
    "Solve",
]
