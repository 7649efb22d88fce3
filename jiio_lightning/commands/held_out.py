"""Batches of the test split, and the bench that measures solvers on one of them: what compare, front and attack share."""

from __future__ import annotations

from functools import partial
from typing import Any

from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import move_data_to_device

from jiio_lightning.commands.comparison import Bench
from jiio_lightning.tasks.base import JIIOTask


def groups(datamodule: LightningDataModule, samples: int, count: int, model: JIIOTask) -> list[Any]:
    """The first ``count`` batches of ``samples`` test samples each.

    Raises:
        ValueError: if there are fewer.
    """
    pieces: list[Any] = []
    for batch in datamodule.test_dataloader():
        size = len(batch.index)
        starts = range(0, size - samples + 1, samples)
        pieces += [type(batch)(*(part[start : start + samples] for part in batch)) for start in starts]
        if len(pieces) >= count:
            return [move_data_to_device(piece, model.device) for piece in pieces[:count]]
    raise ValueError(
        f"the test batches have {len(pieces)} groups of {samples} samples, {count} are wanted: "
        f"set data.eval_batch_size to at least {samples}, or data.test_limit higher"
    )


def first(datamodule: LightningDataModule, n: int | None, model: JIIOTask, fewer: bool = False) -> list[Any]:
    """The test batches that hold the first n samples, all of them for None; fewer samples, where ``fewer`` will do.

    Raises:
        ValueError: if there are fewer.
    """
    batches: list[Any] = []
    for batch in datamodule.test_dataloader():
        left = None if n is None else n - sum(len(given.index) for given in batches)
        batches.append(move_data_to_device(type(batch)(*(part[:left] for part in batch)), model.device))
        if left is not None and left <= len(batch.index):
            return batches
    if n is not None and not fewer:
        raise ValueError(f"the test split has {sum(len(given.index) for given in batches)} samples, --n wants {n}")
    return batches


def bench_on(batch: Any, model: JIIOTask, repeats: int = 1) -> Bench:
    """A bench for the task's inner problem of a batch, with its start, its tight solve and its metrics."""
    problem = model.problem(batch)
    return Bench(
        problem,
        partial(model.initial, batch),
        model.injected.resolve,
        partial(model.evaluate, batch, problem),
        repeats,
        plain=partial(model.start, batch),
        learned=partial(model.at_learned_start, batch),
    )
