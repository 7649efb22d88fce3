"""How long a training step takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class StepSeconds(Callback):
    """Logs ``train/seconds``: the median wall-clock time of the run's training steps so far, from batch to updated weights.

    Validation, checkpoints and the loader's work between steps do not count. On a GPU each step waits for the device, so
    that the time is true; leave the callback out of runs that are to be fast.

    Args:
        skip: first steps that do not count: caches are filled, kernels chosen.
    """

    def __init__(self, skip: int = 1) -> None:
        self.skip = skip
        self._seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        _synchronise(pl_module)
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        _synchronise(pl_module)
        self._seconds.append(time.perf_counter() - self._began)
        pl_module.log("train/seconds", statistics.median(self._seconds[self.skip :] or self._seconds), batch_size=1)


def _synchronise(module: LightningModule) -> None:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
