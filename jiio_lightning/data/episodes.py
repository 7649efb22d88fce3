"""Few-shot episodes: pure functions of (seed, number), gathered a batch at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jiio_lightning.data.batches import EpisodeBatch
from jiio_lightning.data.dataset import ValueRange, normalise
from jiio_lightning.data.prepared import MappedRows
from jiio_lightning.data.randomness import Stream, generator
from jiio_lightning.data.sampler import Draw


@dataclass(frozen=True)
class EpisodePlan:
    """What an episode is drawn like: N ways, K support and Q query drawings of each, the class turned or not."""

    ways: int = 5
    shots: int = 1
    queries: int = 1
    rotate: bool = True

    def draw(self, rng: np.random.Generator, characters: int, drawings: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``(N, K + Q)`` of distinct drawings of N distinct characters, and the quarter turns ``(N,)`` of each."""
        classes = rng.choice(characters, self.ways, replace=False)
        chosen = rng.random((self.ways, drawings)).argsort(axis=1)[:, : self.shots + self.queries]
        turns = rng.integers(4, size=self.ways)
        return classes[:, None] * drawings + chosen, turns if self.rotate else np.zeros_like(turns)


class EpisodeDataset(Dataset[EpisodeBatch]):
    """Episodes over one set of characters.

    Args:
        images: uint8 ``(images, 1, H, H)``.
        places: where the drawings of each character lie among them, int64 ``(characters, drawings)``.
        plan: ways, shots, queries and rotation.
        length: episodes in an epoch; the next epoch goes on with the next numbers.
        seed: of the episodes.
        stream: keeps the episodes of training, validation and test apart.
        levels: value of a full pixel.
        value_range: what 0 and ``levels`` become.
    """

    def __init__(
        self,
        images: MappedRows,
        places: np.ndarray,
        plan: EpisodePlan,
        length: int,
        seed: int,
        stream: Stream,
        levels: int,
        value_range: ValueRange,
    ) -> None:
        self.images, self.places, self.plan, self.length = images, places, plan, length
        self.seed, self.stream, self.levels, self.value_range = seed, stream, levels, value_range
        self.turned = quarter_turns(images.tensor.shape[-1])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> EpisodeBatch:
        numbers = draw.epoch * self.length + draw.rows
        rows, turns = self._plans(numbers)
        pixels = self._turned(self._gathered(rows), turns)
        images = normalise(pixels, self.levels, self.value_range).unflatten(0, rows.shape)
        label = torch.arange(self.plan.ways, device=images.device).view(1, -1, 1).expand(rows.shape)
        support, query = slice(None, self.plan.shots), slice(self.plan.shots, None)
        return EpisodeBatch(
            support=images[:, :, support].flatten(1, 2),
            support_label=label[:, :, support].flatten(1, 2),
            query=images[:, :, query].flatten(1, 2),
            query_label=label[:, :, query].flatten(1, 2),
            index=torch.from_numpy(numbers).to(images.device),
        )

    def _plans(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places ``(T, N, K + Q)`` of the drawings and quarter turns ``(T, N)`` of T episodes."""
        rngs = (generator(self.seed, self.stream, int(number)) for number in numbers)
        rows, turns = zip(*(self.plan.draw(rng, *self.places.shape) for rng in rngs), strict=True)
        return self.places.ravel()[np.stack(rows)], np.stack(turns)

    def _gathered(self, rows: np.ndarray) -> Tensor:
        tensor = self.images.tensor
        return tensor.index_select(0, torch.from_numpy(rows.ravel()).to(tensor.device))

    def _turned(self, pixels: Tensor, turns: np.ndarray) -> Tensor:
        """Turn all drawings of a class alike: one gather of pixels, without a branch for each angle."""
        each = torch.from_numpy(turns.ravel()).to(pixels.device)
        sources = self.turned.to(pixels.device)[each].repeat_interleave(len(pixels) // len(each), dim=0)
        return pixels.flatten(1).gather(1, sources).view_as(pixels)


def quarter_turns(side: int) -> Tensor:
    """Which pixel comes where after 0, 1, 2 and 3 quarter turns to the left: int64 ``(4, side * side)``."""
    grid = torch.arange(side * side).view(side, side)
    return torch.stack([torch.rot90(grid, turn).flatten() for turn in range(4)])
