"""Networks that are equilibria: their cells, heads and injections."""

from jiio_lightning.models.classifier import ImageClassifier
from jiio_lightning.models.conditioned import FiLMClassifier
from jiio_lightning.models.coordinate_generator import CoordinateGenerator
from jiio_lightning.models.coordinate_mlps import SIREN, FourierFeatures
from jiio_lightning.models.coordinate_nets import IMFN, ISIREN, MFN, InjectedSIREN
from jiio_lightning.models.generator import LatentGenerator
from jiio_lightning.models.interface import Classifier, ConditionalClassifier, CoordinateNet, Generator, Solve
from jiio_lightning.models.mdeq import MDEQCell

__all__ = [
    "IMFN",
    "ISIREN",
    "MFN",
    "SIREN",
    "Classifier",
    "ConditionalClassifier",
    "CoordinateGenerator",
    "CoordinateNet",
    "FiLMClassifier",
    "FourierFeatures",
    "Generator",
    "ImageClassifier",
    "InjectedSIREN",
    "LatentGenerator",
    "MDEQCell",
    "Solve",
]
