"""From metrics of each sample to a table's means, medians and intervals."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from jiio_lightning.callbacks.gathering import Rows, gather_rows
from jiio_lightning.callbacks.media import log_table
from jiio_lightning.files import whole_file
from jiio_lightning.metrics.intervals import LEAST, Interval, mean_interval, median_interval, share_interval

SHARE = "accuracy"
"""Where the name of a metric begins so and each value is 0 or 1, its mean is a share."""


class SampleMetrics(Callback):
    """Collects what ``test_step`` (of ``jiio test``) or ``validation_step`` (of ``jiio validate``) returns for each sample.

    Over all processes, each sample once, it logs for every metric NAME

    * ``test/NAME``: the mean, and its 95 % interval ``test/NAME_low``, ``test/NAME_high`` (normal; Wilson's for an accuracy of
      0 or 1 a sample);
    * ``test/NAME_median`` and its 95 % interval ``test/NAME_median_low``, ``test/NAME_median_high``, between two order statistics
      and so exact for every distribution (an accuracy of 0 or 1 has none);

    and writes them to ``<run folder>/samples_test.csv``. Of fewer than six samples only an accuracy has an interval:
    the others are left out, with a warning.
    """

    def __init__(self) -> None:
        self._batches: list[Mapping[str, Tensor]] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._keep(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # within a fit the task's means suffice
            self._keep(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._report(trainer, pl_module, "val")

    def _keep(self, outputs: Any) -> None:
        if isinstance(outputs, Mapping) and "index" in outputs:
            self._batches.append({name: value.detach().cpu() for name, value in outputs.items()})

    def _report(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        rows = gather_rows(self._batches)
        self._batches = []
        if rows and len(rows["index"]) < LEAST:
            rank_zero_warn(f"{len(rows['index'])} samples have no 95 % intervals of means and medians: they need {LEAST}")
        for name, values in rows.items():
            if name != "index":
                # the mean, which the task has logged too, is now that of float64
                task.log_dict({f"{stage}/{key}": value for key, value in summary(name, values.astype(np.float64)).items()})
        if rows and trainer.is_global_zero:
            write_rows(rows, Path(trainer.default_root_dir) / f"samples_{stage}.csv")
            log_table(
                trainer, f"samples/{stage}", list(rows), list(zip(*(column.tolist() for column in rows.values()), strict=True))
            )


def summary(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean, median and their 95 % intervals of a metric, by their names in the log; a ValueError for a shape but ``(N,)``."""
    if values.ndim != 1:
        raise ValueError(f"the metric {name!r} has the shape {values.shape}: it must be one number a sample")
    share = name.startswith(SHARE) and bool(np.isin(values, (0, 1)).all())
    metrics = {name: float(values.mean())} | _ends(name, share_interval(values) if share else mean_interval(values))
    if share:
        return metrics
    median = f"{name}_median"
    return metrics | {median: float(np.median(values))} | _ends(median, median_interval(values))


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    """The ends of an interval by their names; nothing where there is none."""
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def write_rows(rows: Rows, path: Path) -> None:
    """A CSV file with one column a name, ``index`` first, written whole or not at all."""
    names = ["index", *(name for name in rows if name != "index")]
    with whole_file(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(rows[name].tolist() for name in names), strict=True))
