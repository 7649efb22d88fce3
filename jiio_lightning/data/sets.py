"""All data sets by name."""

from jiio_lightning.data.celeba import CelebA
from jiio_lightning.data.cifar10 import CIFAR10
from jiio_lightning.data.dataset import ImageBatch
from jiio_lightning.data.digits import DigitEpisodes, Digits
from jiio_lightning.data.episodes import EpisodeBatch
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.fewshot_folder import FewShotFolder
from jiio_lightning.data.ffhq import FFHQ
from jiio_lightning.data.images import ImageFolder
from jiio_lightning.data.mnist import MNIST
from jiio_lightning.data.module import PreparedDataModule
from jiio_lightning.data.omniglot import Omniglot
from jiio_lightning.data.signals import AudioSignal, ImageSignal, SolidSignal, VideoSignal

SETS: dict[str, type[PreparedDataModule]] = {
    data.title: data for data in (Digits, MNIST, CIFAR10, Omniglot, CelebA, FFHQ, ImageFolder)
}
"""What ``jiio data`` prepares, by name."""

__all__ = [
    "CIFAR10",
    "FFHQ",
    "MNIST",
    "SETS",
    "AudioSignal",
    "CelebA",
    "DataError",
    "DigitEpisodes",
    "Digits",
    "EpisodeBatch",
    "FewShotFolder",
    "ImageBatch",
    "ImageFolder",
    "ImageSignal",
    "Omniglot",
    "SolidSignal",
    "VideoSignal",
]
