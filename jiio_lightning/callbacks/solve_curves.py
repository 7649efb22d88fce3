"""Cost and residuals along one inner solve, for the loggers."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer

from jiio_lightning.callbacks.media import log_curves
from jiio_lightning.core.inner import RESIDUALS
from jiio_lightning.core.solvers.observers import Snapshot
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
        first = type(batch)(*(part[: self.samples] for part in batch))
        costs: list[float] = []
        medians: list[list[float]] = []  # (steps, 3)

        def look(now: Snapshot) -> None:  # and let go of the iterate: 100 of Table 9's are gigabytes
            costs.append(float(now.cost.mean()))
            medians.append(now.residual.median(dim=0).values.tolist())

        pl_module.solve(first, [look])
        residuals = {f"residual_{name}": list(column) for name, column in zip(RESIDUALS, zip(*medians, strict=True), strict=True)}
        log_curves(trainer, "solve/test", {"cost": costs, **residuals})
