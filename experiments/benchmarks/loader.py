"""How fast batches come: the loader against decoding JPEGs in each epoch and against copying the same bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from jiio_lightning.data import DataError
from jiio_lightning.data.catalogue import data_root
from jiio_lightning.data.dataset import ImageDataset, normalise
from jiio_lightning.data.prepared import Manifest, Prepared
from jiio_lightning.data.sampler import BatchLoader, TrainBatches

RANGE = (-1.0, 1.0)


def loader(
    name: str, root: str | None = None, batch_size: PositiveInt = 48, epochs: PositiveInt = 3, decoded: PositiveInt = 9600
) -> list[dict[str, str | float]]:
    """Images and gigabytes a second over the training split of a prepared set; the fastest epoch counts.

    Args:
        name: of the prepared set, as ``jiio data list`` gives it.
        root: folder of the prepared sets; by default JIIO_DATA or ``data``.
        batch_size: images in a batch.
        epochs: epochs to measure.
        decoded: number of images of the split where JPEGs are decoded.

    Raises:
        DataError: if no such set is prepared.
    """
    folder = data_root(root) / name
    if not folder.is_dir():
        raise DataError(f"no set called {name} is prepared in {data_root(root).resolve()}: `jiio data list` shows what there is")
    prepared = Prepared(folder, Manifest.load(folder))
    images = prepared.rows("images", "train")
    dataset = ImageDataset(images, prepared.rows("labels", "train"), prepared.manifest.levels, RANGE, flip_seed=0)
    sampler = TrainBatches(dataset, batch_size, seed=0)
    draws = [torch.from_numpy(draw.rows) for draw in sampler]
    jpegs = JpegDataset(images.tensor[:decoded].numpy())
    floats = torch.ones(batch_size, *images.tensor.shape[1:])
    out, pixels = torch.empty_like(floats), images.tensor
    count, size = len(draws) * batch_size, pixels[0].numel()

    def row(what: str, batches: Iterable[object], count: int, size: int) -> dict[str, str | float]:
        rate = count / min(_seconds(batches) for _ in range(epochs))
        return {"what": what, "images_per_second": rate, "gb_per_second": rate * size / 1e9}

    return [
        row("loader, prepared", BatchLoader(dataset, batch_size=None, sampler=sampler), count, 4 * size),
        row("decoding JPEGs, 0 workers", _jpegs(jpegs, batch_size, 0), len(jpegs), 4 * size),
        row("decoding JPEGs, 2 workers", _jpegs(jpegs, batch_size, 2), len(jpegs), 4 * size),
        row("gather alone, bytes", _Each(draws, lambda rows: pixels.index_select(0, rows)), count, size),
        row("copy of the same bytes", _Each(pixels.split(batch_size), torch.clone), len(pixels), size),
        row("copy of the same floats", _Each(draws, lambda rows: out.copy_(floats)), count, 4 * size),
    ]


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
