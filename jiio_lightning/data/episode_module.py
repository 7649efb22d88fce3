"""What the LightningDataModules of few-shot episodes share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jiio_lightning.data.dataset import ValueRange
from jiio_lightning.data.episodes import EpisodeDataset, EpisodePlan
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import PreparedDataModule
from jiio_lightning.data.prepared import MappedRows
from jiio_lightning.data.randomness import Stream

STREAMS = {"train": Stream.TRAIN_EPISODE, "val": Stream.VAL_EPISODE, "test": Stream.TEST_EPISODE}


@dataclass(kw_only=True, eq=False)
class EpisodeDataModule(PreparedDataModule):
    """N-way K-shot episodes over the characters of a prepared set, of each as many drawings.

    A batch is ``batch_size`` episodes. Every class of an episode is turned by 0, 90, 180 or 270 degrees, drawings to
    learn from and to be asked about alike: an augmentation, not new classes.

    Args:
        ways: classes of an episode, N.
        shots: drawings of each to learn from, K.
        queries: drawings of each to be asked about, Q.
        train_ways: N in training, where it is to be another.
        train_queries: Q in training, where it is to be another.
        rotate: turn each class of an episode by a random number of quarter turns.
        train_episodes: episodes in an epoch; the next epoch has new ones.
        val_episodes: episodes to validate.
        test_episodes: episodes to test.

    Raises:
        DataError: for an episode without ways, shots or queries, or with more drawings of a class than there are.
    """

    batch_size: int = 16
    value_range: ValueRange = (0.0, 1.0)
    ways: int = 5
    shots: int = 1
    queries: int = 1
    train_ways: int | None = None
    train_queries: int | None = None
    rotate: bool = True
    train_episodes: int = 10_000
    val_episodes: int = 200
    test_episodes: int = 600

    drawings: ClassVar[int]  # of each character

    def __post_init__(self) -> None:
        super().__post_init__()
        plans = [self.plan(split) for split in ("train", "test")]
        if any(min(p.ways, p.shots, p.queries) < 1 or p.shots + p.queries > self.drawings for p in plans):
            raise DataError(
                f"an episode needs ways, shots and queries of at least 1, and has {self.drawings} drawings of each class."
            )

    @abstractmethod
    def characters(self, split: str) -> MappedRows:
        """Images among which the drawings of a split are."""

    @abstractmethod
    def places(self, split: str) -> np.ndarray:
        """Where the drawings of each character of a split lie among them, int64 ``(characters, drawings)``."""

    @property
    def num_classes(self) -> int:
        return self.ways

    def dataset(self, split: str) -> EpisodeDataset:
        lengths = {"train": self.train_episodes, "val": self.val_episodes, "test": self.test_episodes}
        return EpisodeDataset(
            self.characters(split),
            self.places(split),
            self.plan(split),
            lengths[split],
            self.seed,
            STREAMS[split],
            self.prepared.manifest.levels,
            self.value_range,
        )

    def plan(self, split: str) -> EpisodePlan:
        """What an episode of a split is drawn like."""
        if split != "train":
            return EpisodePlan(self.ways, self.shots, self.queries, self.rotate)
        ways = self.ways if self.train_ways is None else self.train_ways
        return EpisodePlan(ways, self.shots, self.queries if self.train_queries is None else self.train_queries, self.rotate)
