"""What every run has unless its run file says otherwise: a checkpoint of the last step, and a progress bar in optimiser steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from jiio_lightning.callbacks.finite import logged
from jiio_lightning.core.inner import SolveError


class FinalCheckpoint(ModelCheckpoint):
    """ModelCheckpoint whose ``last.ckpt`` holds the last step.

    Lightning's is as old as the last validation: with a validation every 100 steps, a run of 350 steps would leave the weights of
    step 300. And what a run goes on from is not written again before it has done a step.
    """

    replaced: Sequence[Path] = ()
    """Checkpoints of another run: they go when the first one of this is there."""
    _whole = 0
    """The last step that was done with all that belongs to it, such as the schedule's."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = self._whole = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._whole = trainer.global_step
        super().on_train_batch_end(trainer, *args)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # Lightning's would save
            return
        super().on_train_end(trainer, pl_module)
        if self.save_last is True and self.last_model_path:
            trainer.save_checkpoint(self.last_model_path, self.save_weights_only)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # weights that meet what is not finite may be on their way out: not over a checkpoint that there is
        if trainer.world_size > 1 and not isinstance(exception, SIGTERMException):
            trainer.strategy.barrier = lambda *_: None  # type: ignore[assignment]  # the others may never come to it
        diverged = isinstance(exception, SolveError) and any(Path(self.dirpath or "").glob("*.ckpt"))
        if trainer.global_step == self._whole and not diverged:
            with suppress(SolveError):  # if they are not finite either: that is what the exception says
                super().on_exception(trainer, pl_module, exception)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        own = {Path(path).resolve() for path in (self.last_model_path, self.best_model_path, *self.best_k_models)}
        for path in self.replaced if trainer.is_global_zero else ():
            if path.resolve() not in own:
                path.unlink(missing_ok=True)
        self.replaced = ()


class StepProgress(TQDMProgressBar):
    """Counts optimiser steps to the end of the run; Lightning's bar starts again in each epoch, of which a run may have many."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        total = trainer.estimated_stepping_batches
        self.train_progress_bar.reset(total=None if total == float("inf") else int(total))
        # A resumed run begins where it was left.
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        bar = self.train_progress_bar
        if logged(trainer, trainer.global_step):  # numbers to show are read from the device
            bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
        if self._should_update(trainer.global_step, bar.total or 0):
            bar.update(trainer.global_step - bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The bar stays open."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics that the task shows, in four digits."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items() if name != "v_num"}
