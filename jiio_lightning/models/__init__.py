"""Networks that are equilibria: their cells, heads and injections."""

from jiio_lightning.models.autoencoders import ConvDecoder, ConvEncoder
from jiio_lightning.models.classifier import ImageClassifier
from jiio_lightning.models.conditioned import FiLMClassifier
from jiio_lightning.models.convnet import Conv4
from jiio_lightning.models.encoder import MDEQEncoder
from jiio_lightning.models.explicit import ExplicitGenerator
from jiio_lightning.models.features import Features
from jiio_lightning.models.generator import LatentGenerator
from jiio_lightning.models.interface import Classifier, Code, ConditionalClassifier, Decoder, Encoder, Generator, Solve
from jiio_lightning.models.mdeq import MDEQCell

__all__ = [
    "Classifier",
    "Code",
    "ConditionalClassifier",
    "Conv4",
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "Encoder",
    "ExplicitGenerator",
    "Features",
    "FiLMClassifier",
    "Generator",
    "ImageClassifier",
    "LatentGenerator",
    "MDEQCell",
    "MDEQEncoder",
    "Solve",
]
