"""Cost and residuals along one inner solve, for the loggers."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer

from jiio_lightning.callbacks.media import log_curves
from jiio_lightning.core.inner import RESIDUALS
from jiio_lightning.core.solvers.observers import Trace
from jiio_lightning.tasks.base import JIIOTask


class SolveCurves(Callback):
    """Shows how the solve of the first test batch went: mean cost and median residuals of z, mu and x at each step.

    Weights & Biases gets them as the table ``solve/test``, TensorBoard as the scalars ``solve/test/cost`` and so on; the axis is
    the step of the solve.

    Args:
        samples: of the batch, at most.
    """

    def __init__(self, samples: PositiveInt = 64) -> None:
        self.samples = samples

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or not trainer.is_global_zero or not isinstance(pl_module, JIIOTask):
            return
        first, trace = type(batch)(*(part[: self.samples] for part in batch)), Trace()
        pl_module.solve(first, [trace])
        medians = torch.stack([now.residual.median(dim=0).values for now in trace.snapshots])  # (steps, 3)
        costs = [float(now.cost.mean()) for now in trace.snapshots]
        residuals = {f"residual_{name}": medians[:, i].tolist() for i, name in enumerate(RESIDUALS)}
        log_curves(trainer, "solve/test", {"cost": costs, **residuals})
