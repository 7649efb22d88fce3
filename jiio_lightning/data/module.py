"""The LightningDataModules' common part: open a prepared set, deal out its batches."""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type
from pytorch_lightning import LightningDataModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from jiio_lightning.data.catalogue import data_root
from jiio_lightning.data.dataset import ImageDataset, ValueRange
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.prepared import Prepared, prepare
from jiio_lightning.data.recipe import Recipe, Shape
from jiio_lightning.data.rows import MappedRows
from jiio_lightning.data.sampler import BatchLoader, Draw, EvalBatches, TrainBatches, batches_done

Workers = restricted_number_type("Workers", int, [(">=", 0), ("<=", 256)])
"""Processes: a number of another kind by mistake would start them until the machine stands still."""


@dataclass(kw_only=True, eq=False)
class PreparedDataModule(Recipe, LightningDataModule):
    """Batches of a prepared set. The fields are the options of every set.

    Args:
        root: folder of the prepared sets; by default the environment variable JIIO_DATA, else ``data``.
        source: the originals (a folder or an archive), from which a set that is not there yet is prepared; one that is there
            has to have been made from them.
        batch_size: samples in a training batch of one process.
        eval_batch_size: samples in any other batch; by default ``batch_size``.
        num_workers: processes that gather batches; 0 is fastest for small images.
        seed: of the order, the flips and the episodes, each a pure function of (seed, epoch, index).
        on_device: hold the set as one tensor on the training device and gather batches there, without workers.
        value_range: what black and white become, ``[-1, 1]`` or ``[0, 1]``.
    """

    root: str | None = None
    source: str | None = None
    batch_size: PositiveInt = 64
    eval_batch_size: PositiveInt | None = None
    num_workers: Workers = 0
    seed: NonNegativeInt = 0
    on_device: bool = False
    value_range: ValueRange = (-1.0, 1.0)

    def __post_init__(self) -> None:
        super().__init__()
        if self.on_device and self.num_workers:
            raise DataError("on_device gathers batches on the device, without workers: set num_workers to 0.")
        if not self.value_range[0] < self.value_range[1]:
            raise DataError(f"value_range is {self.value_range}: the first value is to be below the second.")

    @abstractmethod
    def dataset(self, split: str) -> Dataset[Any]:
        """Batches of ``train``, ``val`` or ``test``, each gathered from a ``Draw``."""

    @property
    def image_shape(self) -> Shape:
        """Channels, height and width of an image of a batch."""
        return self.shape

    def prepare_data(self) -> None:
        """Prepare the set on the fly, where that needs nothing or a source is given."""
        if self.source is not None or not self.where:
            there = (data_root(self.root) / self.name).exists()
            prepared = prepare(self, Path(self.source).expanduser() if self.source else None, data_root(self.root))
            if not there:
                rank_zero_info(f"prepared {prepared.folder}: {prepared.manifest.summary}")

    def setup(self, stage: str | None = None) -> None:
        """Open the set before any work begins."""
        self.prepared  # noqa: B018
        # gathering needs no workers: Lightning's advice would make it slower
        warnings.filterwarnings("ignore", message=".*does not have many workers", category=UserWarning)

    @cached_property
    def prepared(self) -> Prepared:
        return Prepared.open(data_root(self.root), self)

    def resident(self, rows: MappedRows) -> MappedRows:
        """The rows where they are to live: on the device, or mapped from disk."""
        return rows.to(self.device) if self.on_device else rows

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches that go on where a resumed run was interrupted."""
        if self.trainer is not None and self.trainer.overfit_batches:
            raise DataError("overfit_batches draws single samples, of which there are none: set data.train_limit instead.")
        dataset = self.dataset("train")
        done = None if self.trainer is None else partial(batches_done, self.trainer)
        accumulated = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        return self._loader(dataset, TrainBatches(dataset, self.batch_size, self.seed, *self._place, done, accumulated))

    def val_dataloader(self) -> BatchLoader:
        # a fit may do without validation, `jiio validate` may not
        return self._eval_loader("val", needed=self.trainer is not None and self.trainer.state.fn == TrainerFn.VALIDATING)

    def test_dataloader(self) -> BatchLoader:
        return self._eval_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        return self._eval_loader("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """All of it but ``index``, which seeds random choices: the host would have to wait for it in each step."""
        return super().transfer_batch_to_device(batch, device, dataloader_idx)._replace(index=batch.index)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _eval_loader(self, split: str, needed: bool = True) -> BatchLoader:
        dataset = self.dataset(split)
        if needed and not len(dataset):  # type: ignore[arg-type]
            raise DataError(f"{self.name} has no {split} samples: there is nothing to measure. Prepare it with some.")
        count, processes = len(dataset), self._place[1]  # type: ignore[arg-type]
        if 0 < count < processes:  # one without a batch leaves the others waiting
            raise DataError(f"{count} {split} samples are too few for {processes} processes: lower trainer.devices")
        return self._loader(dataset, EvalBatches(dataset, self.eval_batch_size or self.batch_size, *self._place))

    def _loader(self, dataset: Dataset[Any], sampler: DistributedSampler[Draw]) -> BatchLoader:
        return BatchLoader(
            dataset,
            batch_size=None,  # a draw is a whole batch already
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda" and not self.on_device,
            persistent_workers=self.num_workers > 0,
        )


@dataclass(kw_only=True, eq=False)
class ImageDataModule(PreparedDataModule):
    """Batches of images. A new set is a subclass that says its title and shape, and reads its originals.

    >>> import tempfile
    >>> import numpy as np
    >>> from jiio_lightning.data.recipe import Contents
    >>> class Greys(ImageDataModule):
    ...     title, shape = "greys", (1, 2, 2)
    ...
    ...     def read(self, originals):
    ...         images = np.arange(250, dtype=np.uint8).repeat(4).reshape(250, 1, 2, 2)
    ...         splits = {"train": 200, "val": 20, "test": 30}
    ...         return Contents(splits, np.arange(250) // 125, [images], origin=lambda: {"form": "arithmetic"})
    >>> data = Greys(root=tempfile.mkdtemp(), batch_size=50, value_range=(0, 255))
    >>> data.prepare_data()
    >>> [tuple(batch.image.shape) for batch in data.train_dataloader()]
    [(50, 1, 2, 2), (50, 1, 2, 2), (50, 1, 2, 2), (50, 1, 2, 2)]
    >>> data.split_images("val", 2).flatten().tolist()
    [200.0, 200.0, 200.0, 200.0, 201.0, 201.0, 201.0, 201.0]

    Args:
        flip: mirror every second training image, chosen anew in each epoch.
        train_limit: use the first so many samples of the training split.
        val_limit: use the first so many samples of the validation split.
        test_limit: use the first so many samples of the test split.
    """

    flip: bool = False
    train_limit: PositiveInt | None = None
    val_limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None

    padding = 0  # of the prepared images, on each side

    @property
    def image_shape(self) -> Shape:
        channels, height, width = self.shape
        return channels, height + 2 * self.padding, width + 2 * self.padding

    def dataset(self, split: str) -> ImageDataset:
        return ImageDataset(
            self._rows("images", split),
            self._rows("labels", split),
            self.prepared.manifest.levels,
            self.value_range,
            self.padding,
            flip_seed=self.seed if self.flip and split == "train" else None,
        )

    def _rows(self, array: str, split: str) -> MappedRows:
        """``images`` or ``labels`` of a split, within its limit."""
        rows = self.prepared.rows(array, split)
        limit = {"train": self.train_limit, "val": self.val_limit, "test": self.test_limit}[split]
        if limit is not None and limit > len(rows):
            raise DataError(f"{self.name}: {split}_limit is {limit}, the split has {len(rows)} samples.")
        return self.resident(rows[:limit])

    def split_images(self, split: str, limit: int | None = None) -> Tensor:
        """The first ``limit`` images of a split at once, as in a batch but unflipped: float32 ``(N, C, H, W)``."""
        return self.dataset(split).first(limit)
