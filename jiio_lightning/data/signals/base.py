"""A signal as coordinates and values, and the batches that a representation learns from."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from jiio_lightning.data.catalogue import data_root
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.sampler import BatchLoader, batches_done
from jiio_lightning.models.grid import grid
from jiio_lightning.randomness import DataStream, generator

EPOCH = 100
"""Steps in what Lightning takes for an epoch; of a signal there is no natural number."""


class SignalBatch(NamedTuple):
    """Points of a signal."""

    c: Tensor  # (N, d) coordinates in [-1, 1]
    values: Tensor  # (N, C) float32 in [-1, 1], or 0 and 1 of an occupancy
    index: Tensor  # type: ignore[assignment]  # (N,) int64, position among the ``total`` training points; empty of new points
    total: int
    shape: tuple[int, ...] = ()  # of the grid that the points fill in its order
    occupancy: bool = False
    part: str = ""  # of the test points, where there are several kinds
    whole: bool = False  # all training points in their order; as many that are drawn have repeats

    def share(self, rank: int, processes: int) -> SignalBatch:
        """The points of one of several processes."""
        if processes == 1:
            return self
        c, values, index = (part[rank::processes] for part in (self.c, self.values, self.index))
        return self._replace(c=c, values=values, index=index, whole=False, shape=())


def every(shape: tuple[int, ...], stride: int, first: int) -> tuple[Tensor, tuple[int, ...]]:
    """Positions ``(N,)`` of the points ``[first::stride]`` along each axis of a grid, and their number along each."""
    places = torch.arange(int(np.prod(shape))).reshape(shape)[(slice(first, None, stride),) * len(shape)]
    return places.flatten(), tuple(places.shape)


def needs(module: str) -> ModuleType:
    """An optional library, or one line about the extra that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise DataError(f"this signal needs {name}: pip install 'jiio-lightning[signals]'") from error


class Steps(Sampler[int]):
    """Numbers of the training batches from where the run is: a batch is a function of its number."""

    def __init__(self, done: Callable[[], int], block: int, seed: int) -> None:
        self.done, self.block, self.seed = done, block, seed

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self) -> Iterator[int]:
        done = self.done()
        return iter(range(done, done + EPOCH))


@dataclass(eq=False)
class Batches(Dataset[SignalBatch]):
    """One process's shares of the training batches, by their number."""

    make: Callable[[int], SignalBatch]
    rank: int = 0
    processes: int = 1

    def __getitem__(self, number: int) -> SignalBatch:
        return self.make(number).share(self.rank, self.processes)


@dataclass(kw_only=True, eq=False)
class SignalData(LightningDataModule):
    """Points of one signal. A new kind says how it is read and written.

    Args:
        path: of the file, as it is or below the folder of data sets (JIIO_DATA, else ``data``).
        batch_size: points in a training batch of all processes, drawn anew in each step; by default all of them.
        seed: the points of a step are a function of (seed, step).
        zoom: points that ``jiio predict`` makes along each axis for one of the signal's.
    """

    path: str | None = None
    batch_size: PositiveInt | None = None
    seed: NonNegativeInt = 0
    zoom: PositiveFloat = 1.0

    occupancy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def name(self) -> str:
        """The kind of the signal and a checksum of it, by which a run that goes on knows its data."""
        checksum = 0
        for part in self.identity:
            checksum = zlib.crc32(np.ascontiguousarray(part), checksum)
        return f"{type(self).__name__} {checksum:08x}"

    @property
    @abstractmethod
    def identity(self) -> tuple[np.ndarray, ...]:
        """What training sees of the signal."""

    @abstractmethod
    def batch(self, number: int) -> SignalBatch:
        """Training batch number ``number``."""

    @abstractmethod
    def held(self, stage: str) -> list[SignalBatch]:
        """What ``val`` and ``test`` look at."""

    @abstractmethod
    def view(self) -> SignalBatch:
        """What is shown of it, on a grid of one or two axes."""

    @property
    @abstractmethod
    def grid_shape(self) -> tuple[int, ...]:
        """Points along each axis, of the signal or of what is to be made of it."""

    @abstractmethod
    def write(self, values: Tensor, folder: Path) -> Path:
        """A file of the usual kind in a folder, from values ``(*shape, C)`` at any resolution."""

    def setup(self, stage: str | None = None) -> None:
        """Read the signal before any work begins."""
        self.held("val")

    @property
    def zoomed(self) -> tuple[int, ...]:
        """``grid_shape`` as ``jiio predict`` makes it."""
        return tuple(max(1, round(self.zoom * n)) for n in self.grid_shape)

    def train_dataloader(self) -> BatchLoader:
        if self.trainer is None:
            return BatchLoader(Batches(self.batch), batch_size=None, sampler=Steps(lambda: 0, self.batch_size or 0, self.seed))
        batches = Batches(self.batch, self.trainer.global_rank, self.trainer.world_size)
        steps = Steps(partial(batches_done, self.trainer), self.batch_size or 0, self.seed)
        return BatchLoader(batches, batch_size=None, sampler=steps)

    def val_dataloader(self) -> BatchLoader:
        return _whole(self.held("val"))

    def test_dataloader(self) -> BatchLoader:
        return _whole(self.held("test"))

    def predict_dataloader(self) -> BatchLoader:
        c = grid(self.zoomed)
        values = torch.zeros(len(c), self.channels)
        return _whole([SignalBatch(c, values, torch.arange(len(c)), len(c), self.zoomed, self.occupancy)])

    @property
    @abstractmethod
    def channels(self) -> int:
        """C of a value."""


@dataclass(kw_only=True, eq=False)
class GridSignal(SignalData):
    """A signal that is sampled on a grid.

    Args:
        stride: train on every so many-th point along each axis and test on their diagonal neighbours; 2 is the paper's image
            generalisation, a quarter to train and another quarter to test. With 1 both are all points.
        held_out: share of the training points that ``val`` looks at instead; with 0 it looks at what ``test`` does.
    """

    stride: PositiveInt = 1
    held_out: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.held_out < 1:
            raise DataError(f"held_out is a share of the training points, in [0, 1), not {self.held_out}")

    @abstractmethod
    def read(self) -> Tensor:
        """Values ``(*shape, C)``, float32 in [-1, 1]."""

    @cached_property
    def values(self) -> Tensor:
        values = self.read()
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{self.path} holds values that are not finite")
        if min(values.shape[:-1]) < self.stride:
            raise DataError(f"{self.path} has {tuple(values.shape[:-1])} points, too few for stride={self.stride}")
        return values

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[:-1])

    @property
    def channels(self) -> int:
        return self.values.shape[-1]

    @property
    def identity(self) -> tuple[np.ndarray, ...]:
        places, _ = self.training
        return self.values.flatten(0, -2)[places].numpy(), places.numpy()

    @cached_property
    def training(self) -> tuple[Tensor, tuple[int, ...]]:
        """Positions in the grid that are trained on ``(N,)``, and the grid that they fill."""
        places, shape = every(self.grid_shape, self.stride, 0)
        if not self.held_out:
            return places, shape
        return places[~self._chosen(len(places))], ()

    def batch(self, number: int) -> SignalBatch:
        places, shape = self.training
        if self.batch_size is None:
            return self._all
        draws = generator(self.seed, DataStream.POINTS, number).integers(0, len(places), self.batch_size)
        index = torch.from_numpy(draws)
        return self._points(places[index], index, len(places), ())

    def held(self, stage: str) -> list[SignalBatch]:
        places, shape = every(self.grid_shape, self.stride, 1 if self.stride > 1 else 0)
        if stage == "val" and self.held_out:
            of, _ = every(self.grid_shape, self.stride, 0)
            places, shape = of[self._chosen(len(of))], ()
        return [self._points(places, torch.arange(len(places)), len(places), shape)]

    def view(self) -> SignalBatch:
        shape = self.grid_shape
        places, size = torch.arange(int(np.prod(shape))), int(np.prod(shape[-2:]))
        if len(shape) == 3:  # the middle frame
            places, shape = places[shape[0] // 2 * size :][:size], shape[1:]
        return self._points(places, places, len(places), shape)

    @cached_property
    def _all(self) -> SignalBatch:
        places, shape = self.training
        return self._points(places, torch.arange(len(places)), len(places), shape)._replace(whole=True)

    def _points(self, places: Tensor, index: Tensor, total: int, shape: tuple[int, ...]) -> SignalBatch:
        return SignalBatch(self._coordinates(places), self.values.flatten(0, -2)[places], index, total, shape)

    def _coordinates(self, places: Tensor) -> Tensor:
        """Of positions ``(N,)``: as ``grid`` has them, without making all of a large one."""
        shape = self.grid_shape
        axes = [(2 * place.double() + 1) / n - 1 for place, n in zip(torch.unravel_index(places, shape), shape, strict=True)]
        return torch.stack(axes, dim=-1).float()

    def _chosen(self, count: int) -> Tensor:
        """Which of so many training points are held out, bool ``(count,)``."""
        draws = generator(self.seed, DataStream.HELD_OUT).random(count)
        chosen = torch.from_numpy(draws < self.held_out)
        if chosen.all() or not chosen.any():
            raise DataError(
                f"held_out={self.held_out:g} takes {int(chosen.sum())} of {count} training points: leave some for both"
            )
        return chosen


def _whole(batches: list[SignalBatch]) -> BatchLoader:
    return BatchLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]


def as_bytes(values: Tensor) -> np.ndarray:
    """Values in [-1, 1], clamped, as bytes.

    Example:
        >>> as_bytes(torch.tensor([-1.0, 0.0, 2.0])).tolist()
        [0, 128, 255]
    """
    return ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()


def file_at(path: str | None, kind: str) -> Path:
    """The file of a path, or one line about what is missing."""
    if path is None:
        raise DataError(f"set data.path to {kind}")
    places = Path(path).expanduser(), data_root(None) / path
    for place in places:
        if place.exists():
            return place
    raise DataError(f"there is no {' and no '.join(map(str, dict.fromkeys(places)))}: set data.path to {kind}")
