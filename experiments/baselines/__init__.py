"""What JIIO is compared with: autoencoders, few-shot methods, and the feature classifiers of Frechet distances."""

from experiments.baselines.autoencoding import Autoencoding
from experiments.baselines.classification import Classification
from experiments.baselines.conv_autoencoder import ConvDecoder, ConvEncoder
from experiments.baselines.convnet import Conv4
from experiments.baselines.explicit import ExplicitGenerator
from experiments.baselines.export_features import ExportFeatures
from experiments.baselines.fewshot import MAML, ImplicitMAML, PrototypicalNetwork, Reptile
from experiments.baselines.interface import Code, Decoder, Encoder
from experiments.baselines.latents import Deterministic, LatentRegularizer, Unregularised, Variational
from experiments.baselines.mdeq_encoder import MDEQEncoder

__all__ = [
    "Autoencoding",
    "Classification",
    "Code",
    "Conv4",
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "Deterministic",
    "Encoder",
    "ExplicitGenerator",
    "ExportFeatures",
    "ImplicitMAML",
    "LatentRegularizer",
    "MAML",
    "MDEQEncoder",
    "PrototypicalNetwork",
    "Reptile",
    "Unregularised",
    "Variational",
]
