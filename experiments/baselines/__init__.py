"""What JIIO is compared with: autoencoders, few-shot methods, and the feature classifiers of Frechet distances."""

from experiments.baselines.autoencoding import Autoencoding
from experiments.baselines.classification import Classification, ExportFeatures
from experiments.baselines.decoders import ConvDecoder, ExplicitGenerator
from experiments.baselines.encoders import ConvEncoder, Encoder, MDEQEncoder
from experiments.baselines.fewshot import MAML, Conv4, ImplicitMAML, PrototypicalNetwork, Reptile
from experiments.baselines.latents import Code, Deterministic, LatentRegularizer, Unregularised, Variational

__all__ = [
    "Autoencoding",
    "Classification",
    "Code",
    "Conv4",
    "ConvDecoder",
    "ConvEncoder",
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
