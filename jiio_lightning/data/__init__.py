"""Data sets, prepared once into memory-mapped arrays, and the LightningDataModules that read them."""

from jiio_lightning.data.batches import EpisodeBatch, ImageBatch
from jiio_lightning.data.celeba import CelebA
from jiio_lightning.data.cifar10 import CIFAR10
from jiio_lightning.data.digits import DigitEpisodes, Digits
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.fewshot_folder import FewShotFolder
from jiio_lightning.data.ffhq import FFHQ
from jiio_lightning.data.images import ImageFolder
from jiio_lightning.data.mnist import MNIST
from jiio_lightning.data.omniglot import Omniglot

__all__ = [
    "CIFAR10",
    "FFHQ",
    "MNIST",
    "CelebA",
    "DataError",
    "DigitEpisodes",
    "Digits",
    "EpisodeBatch",
    "FewShotFolder",
    "ImageBatch",
    "ImageFolder",
    "Omniglot",
]
