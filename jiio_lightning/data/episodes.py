"""Few-shot episodes: pure functions of (seed, number), gathered a batch at a time."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from jiio_lightning.data.dataset import ValueRange, normalise
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import PreparedDataModule
from jiio_lightning.data.rows import MappedRows
from jiio_lightning.data.sampler import Draw
from jiio_lightning.randomness import DataStream, generator

STREAMS = {"train": DataStream.TRAIN_EPISODE, "val": DataStream.VAL_EPISODE, "test": DataStream.TEST_EPISODE}


class EpisodeBatch(NamedTuple):
    """A batch of T few-shot tasks with N ways, K support and Q query drawings of each.

    Rows are sorted by class: the labels are ``0 0 .. 1 1 .. N-1`` in support and in query.
    """

    support: Tensor  # (T, N * K, 1, H, W) float32
    support_label: Tensor  # (T, N * K) int64
    query: Tensor  # (T, N * Q, 1, H, W) float32
    query_label: Tensor  # (T, N * Q) int64
    index: Tensor  # type: ignore[assignment]  # (T,) int64, number of the episode


@dataclass(frozen=True)
class EpisodePlan:
    """What an episode is drawn like: N ways, K support and Q query drawings of each, the class turned or not."""

    ways: int
    shots: int
    queries: int
    rotate: bool

    def draw(self, rng: np.random.Generator, characters: int, drawings: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``(N, K + Q)`` of distinct drawings of N distinct characters, and the quarter turns ``(N,)`` of each."""
        classes = rng.choice(characters, self.ways, replace=False)
        chosen = rng.random((self.ways, drawings)).argsort(axis=1)[:, : self.shots + self.queries]
        turns = rng.integers(4, size=self.ways)
        return classes[:, None] * drawings + chosen, turns if self.rotate else np.zeros_like(turns)


@dataclass(eq=False)
class EpisodeDataset(Dataset[EpisodeBatch]):
    """Episodes over one set of characters; a batch is gathered from a ``Draw``."""

    images: MappedRows  # uint8 (images, 1, H, H)
    places: np.ndarray  # int64 (characters, drawings): where the drawings of each character lie among them
    plan: EpisodePlan
    length: int  # episodes in an epoch; the next epoch goes on with the next numbers
    seed: int
    stream: DataStream  # separates the episodes of training, validation and test
    levels: int  # value of a full pixel
    value_range: ValueRange  # what 0 and ``levels`` become

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> EpisodeBatch:
        numbers = draw.epoch * self.length + draw.rows
        rows, turns = self._plans(numbers)
        images = normalise(self._turned(rows, turns), self.levels, self.value_range).unflatten(0, rows.shape)
        # a label in its own memory each: a loader cannot pin a view of one for many
        label = torch.arange(self.plan.ways, device=images.device).view(1, -1, 1).expand(rows.shape).contiguous()
        support, query = slice(None, self.plan.shots), slice(self.plan.shots, None)
        return EpisodeBatch(
            support=images[:, :, support].flatten(1, 2),
            support_label=label[:, :, support].flatten(1, 2),
            query=images[:, :, query].flatten(1, 2),
            query_label=label[:, :, query].flatten(1, 2),
            index=torch.from_numpy(numbers),
        )

    def _plans(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places ``(T, N, K + Q)`` of the drawings and quarter turns ``(T, N)`` of T episodes."""
        rngs = (generator(self.seed, self.stream, int(number)) for number in numbers)
        rows, turns = zip(*(self.plan.draw(rng, *self.places.shape) for rng in rngs), strict=True)
        return self.places.ravel()[np.stack(rows)], np.stack(turns)

    def _turned(self, rows: np.ndarray, turns: np.ndarray) -> Tensor:
        """Gather drawings and turn all of a class alike: one gather of pixels, without a branch for each angle."""
        pixels = self.images.take(rows.ravel())
        each = torch.from_numpy(turns.ravel()).to(pixels.device)
        sources = quarter_turns(pixels.shape[-1]).to(pixels.device)[each].repeat_interleave(rows.shape[-1], dim=0)
        return pixels.flatten(1).gather(1, sources).view_as(pixels)


@lru_cache
def quarter_turns(side: int) -> Tensor:
    """Which pixel comes where after 0, 1, 2 and 3 quarter turns to the left: int64 ``(4, side * side)``."""
    grid = torch.arange(side * side).view(side, side)
    return torch.stack([torch.rot90(grid, turn).flatten() for turn in range(4)])


@dataclass(kw_only=True, eq=False)
class EpisodeDataModule(PreparedDataModule):
    """N-way K-shot episodes over the characters of a prepared set, of each as many drawings.

    A batch is ``batch_size`` episodes. Every class of an episode is turned by 0, 90, 180 or 270 degrees, support and query
    drawings alike: an augmentation, not new classes.

    >>> import tempfile
    >>> from jiio_lightning.data import DigitEpisodes
    >>> data = DigitEpisodes(root=tempfile.mkdtemp(), batch_size=4, ways=3, shots=2)
    >>> data.prepare_data()
    >>> batch = next(iter(data.train_dataloader()))
    >>> batch.support.shape, batch.support_label[0].tolist()
    (torch.Size([4, 6, 1, 8, 8]), [0, 0, 1, 1, 2, 2])

    Args:
        ways: classes of an episode, N.
        shots: support drawings of each, K.
        queries: query drawings of each, Q.
        train_ways: N in training, where it is to be another.
        train_queries: Q in training, where it is to be another.
        rotate: turn each class of an episode by a random number of quarter turns.
        train_episodes: episodes in an epoch; the next epoch has new ones.
        val_episodes: episodes to validate.
        test_episodes: episodes to test.

    Raises:
        DataError: for an episode with more drawings of a class than there are.
    """

    batch_size: PositiveInt = 16
    value_range: ValueRange = (0.0, 1.0)
    ways: PositiveInt = 5
    shots: PositiveInt = 1
    queries: PositiveInt = 1
    train_ways: PositiveInt | None = None
    train_queries: PositiveInt | None = None
    rotate: bool = True
    train_episodes: PositiveInt = 10_000
    val_episodes: PositiveInt = 200
    test_episodes: PositiveInt = 600

    drawings: ClassVar[int]  # of each character

    def __post_init__(self) -> None:
        super().__post_init__()
        if any((plan := self.plan(split)).shots + plan.queries > self.drawings for split in ("train", "test")):
            raise DataError(f"an episode needs more drawings of each class (shots + queries) than there are, {self.drawings}.")

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
        ways, queries = self.train_ways or self.ways, self.train_queries or self.queries
        return EpisodePlan(ways, self.shots, queries, self.rotate)
