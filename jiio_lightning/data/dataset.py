"""Prepared images as a data set over batches: one indexing of the mapped array gathers a batch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from jiio_lightning.data.batches import ImageBatch
from jiio_lightning.data.prepared import MappedRows
from jiio_lightning.data.randomness import epoch_flips
from jiio_lightning.data.sampler import Draw

ValueRange = tuple[float, float]


def normalise(pixels: Tensor, levels: int, value_range: ValueRange) -> Tensor:
    """Pixels ``0 .. levels`` as float32 in ``value_range``; the two ends are met exactly."""
    low, high = value_range
    return pixels.to(torch.float32).div_(levels / (high - low)).add_(low)


class ImageDataset(Dataset[ImageBatch]):
    """A split of images.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        levels: value of a full pixel.
        value_range: what 0 and ``levels`` become.
        padding: pixels of value 0 on each side.
        flip_seed: mirror every second image, chosen anew in each epoch; None: never.
    """

    def __init__(
        self,
        images: MappedRows,
        labels: MappedRows,
        levels: int,
        value_range: ValueRange,
        padding: int = 0,
        flip_seed: int | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.levels, self.value_range, self.padding, self.flip_seed = levels, value_range, padding, flip_seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> ImageBatch:
        rows = _on(draw.rows, self.images.tensor)
        pixels = self._flipped(self.images.tensor.index_select(0, rows), draw)
        return ImageBatch(self._finished(pixels), self.labels.tensor.index_select(0, rows), rows)

    def first(self, count: int | None = None) -> Tensor:
        """The first ``count`` images, or all of them, unflipped: float32 ``(count, C, H, W)``."""
        return self._finished(self.images.tensor[:count])

    def _finished(self, pixels: Tensor) -> Tensor:
        padded = F.pad(pixels, [self.padding] * 4) if self.padding else pixels
        return normalise(padded, self.levels, self.value_range)

    def _flipped(self, pixels: Tensor, draw: Draw) -> Tensor:
        if self.flip_seed is None:
            return pixels
        rows = np.flatnonzero(epoch_flips(self.flip_seed, draw.epoch, len(self))[draw.rows])
        chosen = np.arange(len(pixels))
        chosen[rows] = len(pixels) + np.arange(len(rows))
        mirrored = pixels.index_select(0, _on(rows, pixels)).flip(-1)
        # copies whole images: a third of the time of torch.where on bytes
        return torch.cat([pixels, mirrored]).index_select(0, _on(chosen, pixels))


def _on(rows: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(like.device)
