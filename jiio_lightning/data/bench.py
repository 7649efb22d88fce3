"""How fast batches come: the loader against decoding JPEGs in each epoch and against copying the same bytes."""

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from jiio_lightning.data.dataset import ImageDataset, normalise
from jiio_lightning.data.loader import BatchLoader
from jiio_lightning.data.prepared import Prepared
from jiio_lightning.data.sampler import TrainBatches

RANGE = (-1.0, 1.0)


@dataclass(frozen=True)
class Rate:
    """Images of one epoch and the seconds it took."""

    what: str
    images: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.what:42} {self.images / self.seconds:12,.0f} images/s {self.seconds:8.3f} s"
            f" {self.bytes / self.seconds / 1e9:8.2f} GB/s"
        )


class JpegDataset(Dataset[torch.Tensor]):
    """The same images as JPEG files in memory, decoded one by one: what every epoch would cost without preparation."""

    def __init__(self, images: np.ndarray) -> None:
        self.files = [_jpeg(image) for image in images]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(io.BytesIO(self.files[index])) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return normalise(pixels.permute(2, 0, 1), 255, RANGE)


def bench(prepared: Prepared, batch_size: int = 48, epochs: int = 3, decoded: int = 4800) -> list[str]:
    """Lines of a table; each rate is the fastest of ``epochs``."""
    images = prepared.rows("images", "train")
    dataset = ImageDataset(images, prepared.rows("labels", "train"), prepared.manifest.levels, RANGE, flip_seed=0)
    loader = BatchLoader(dataset, batch_size=None, sampler=TrainBatches(dataset, batch_size, seed=0))
    jpegs = JpegDataset(images.tensor[:decoded].numpy())
    count, floats = len(loader) * batch_size, 4 * images.tensor[0].numel()
    out = torch.empty(batch_size, *images.tensor.shape[1:])
    rates = [
        _measure("loader, prepared", lambda: _drain(loader), count, floats, epochs),
        _measure("decoding JPEGs, 0 workers", lambda: _drain(_jpegs(jpegs, batch_size, 0)), len(jpegs), floats, epochs),
        _measure("decoding JPEGs, 2 workers", lambda: _drain(_jpegs(jpegs, batch_size, 2)), len(jpegs), floats, epochs),
        _measure("gather alone (uint8)", lambda: _gather(loader), count, floats // 4, epochs),
        _measure("copy of the same bytes (uint8)", lambda: _copy(images.tensor, batch_size), count, floats // 4, epochs),
        _measure("copy of the same bytes as float32", lambda: _fill(out, len(loader)), count, floats, epochs),
    ]
    best = max(rate.images / rate.seconds for rate in rates[1:3])
    return [*map(str, rates), f"loader over the faster decoding: {rates[0].images / rates[0].seconds / best:.1f}"]


def _measure(what: str, run: Callable[[], None], images: int, bytes_each: int, epochs: int) -> Rate:
    times = []
    for _ in range(epochs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return Rate(what, images, min(times), images * bytes_each)


def _drain(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def _gather(loader: BatchLoader) -> None:
    tensor = loader.dataset.images.tensor  # type: ignore[attr-defined]
    for draw in loader.sampler:
        tensor.index_select(0, torch.from_numpy(draw.rows))  # type: ignore[attr-defined]


def _copy(tensor: torch.Tensor, batch_size: int) -> None:
    for batch in tensor.split(batch_size):
        batch.clone()


def _fill(out: torch.Tensor, batches: int) -> None:
    source = torch.ones_like(out)
    for _ in range(batches):
        out.copy_(source)


def _jpegs(dataset: JpegDataset, batch_size: int, workers: int) -> DataLoader:
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=workers)


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=92)
    return file.getvalue()
