"""How fast batches come: the loader against decoding JPEGs in each epoch and against copying the same bytes."""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from jiio_lightning.data.dataset import ImageDataset, normalise
from jiio_lightning.data.prepared import Prepared
from jiio_lightning.data.sampler import BatchLoader, TrainBatches

RANGE = (-1.0, 1.0)


@dataclass(frozen=True)
class Rate:
    """Images of one epoch and the seconds it took."""

    what: str
    images: int
    seconds: float
    bytes: int

    @property
    def per_second(self) -> float:
        return self.images / self.seconds

    def __str__(self) -> str:
        return f"{self.what:28} {self.per_second:10,.0f} images/s {self.bytes / self.seconds / 1e9:7.2f} GB/s"


class JpegDataset(Dataset[torch.Tensor]):
    """The same images as JPEG files in memory, decoded one by one: what every epoch would cost without preparation."""

    def __init__(self, images: np.ndarray) -> None:
        self.files = [_jpeg(image) for image in images]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(io.BytesIO(self.files[index])) as image:
            pixels = torch.from_numpy(np.atleast_3d(np.array(image)))
        return normalise(pixels.permute(2, 0, 1), 255, RANGE)


@dataclass(frozen=True)
class Comparison:
    """The loader beside what it replaces, and beside its bounds."""

    loader: Rate
    decoding: tuple[Rate, ...]
    bounds: tuple[Rate, ...]

    @property
    def gain(self) -> float:
        """How many times faster than the faster way to decode."""
        return self.loader.per_second / max(rate.per_second for rate in self.decoding)

    def __str__(self) -> str:
        rates = (self.loader, *self.decoding, *self.bounds)
        return "\n".join([*map(str, rates), f"loader over the faster decoding: {self.gain:.1f}"])


def compare(prepared: Prepared, batch_size: int = 48, epochs: int = 3, decoded: int = 9600) -> Comparison:
    """Measure epochs over the training split (``decoded`` images of it where JPEGs are decoded); the fastest counts."""
    images = prepared.rows("images", "train")
    dataset = ImageDataset(images, prepared.rows("labels", "train"), prepared.manifest.levels, RANGE, flip_seed=0)
    sampler = TrainBatches(dataset, batch_size, seed=0)
    draws = [torch.from_numpy(draw.rows) for draw in sampler]
    jpegs = JpegDataset(images.tensor[:decoded].numpy())
    floats = torch.ones(batch_size, *images.tensor.shape[1:])
    out, pixels = torch.empty_like(floats), images.tensor
    count, size = len(draws) * batch_size, pixels[0].numel()

    def timed(what: str, batches: Iterable[object], count: int, size: int) -> Rate:
        return Rate(what, count, min(_seconds(batches) for _ in range(epochs)), count * size)

    return Comparison(
        timed("loader, prepared", BatchLoader(dataset, batch_size=None, sampler=sampler), count, 4 * size),
        tuple(
            timed(f"decoding JPEGs, {workers} workers", _jpegs(jpegs, batch_size, workers), len(jpegs), 4 * size)
            for workers in (0, 2)
        ),
        (
            timed("gather alone, bytes", _Each(draws, lambda rows: pixels.index_select(0, rows)), count, size),
            timed("copy of the same bytes", _Each(pixels.split(batch_size), torch.clone), len(pixels), size),
            timed("copy of the same floats", _Each(draws, lambda rows: out.copy_(floats)), count, 4 * size),
        ),
    )


@dataclass(frozen=True)
class _Each:
    """Do something for each item, as often as it is iterated."""

    items: Sequence[torch.Tensor]
    action: Callable[[torch.Tensor], object]

    def __iter__(self) -> Iterator[object]:
        return map(self.action, self.items)


def _seconds(batches: Iterable[object]) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def _jpegs(dataset: JpegDataset, batch_size: int, workers: int) -> DataLoader[torch.Tensor]:
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(file, "JPEG", quality=92)
    return file.getvalue()
