"""What makes a run that was interrupted and goes on the same as one that was not."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException

from jiio_lightning.callbacks.metrics_file import MetricsFile

TWICE = 1.0
"""Seconds within which a second Ctrl-C is the first one: a terminal sends it to a program and to what the program started."""

STREAM = {"samples": "length", "batches of": "block", "batches to a step": "accumulated", "seed": "seed"}
"""What a sampler of training batches says about them."""


class SameRun(Callback):
    """A run that goes on from a checkpoint sees the data, and logs the rows, that the undisturbed run would have.

    Lightning's label of a row depends on where in a step the checkpoint was written; a validation that was due or under way then
    is left out, or only its end is done. Here the label is the number of optimiser steps, and a validation that is not finished
    is done again. ``metrics.csv`` loses the rows from there on.
    """

    pending = False
    """Whether a validation is due after the present step and not finished."""
    stream: dict[str, Any] | None = None
    """Which data a checkpoint's run was trained on."""
    begun = False
    """Whether a step is done."""

    def state_dict(self) -> dict[str, Any]:
        return {"pending": self.pending, "stream": self.stream}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pending, self.stream = state_dict["pending"], state_dict["stream"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._scheduled = bool(checkpoint.get("lr_schedulers"))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # before a checkpoint's optimisers are loaded
        self._options = [{name: value for name, value in group.items() if name != "params"} for group in _groups(trainer)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own, given = _stream(trainer), self.stream
        self.stream = own
        if trainer.ckpt_path is None:
            return
        if trainer.lr_scheduler_configs and not self._scheduled:
            raise ValueError("the checkpoint is of a run without a schedule: go on with model.one_cycle: false")
        # a checkpoint of before may say less of the data
        told = ", ".join(f"{name} {value!r} (now {own[name]!r})" for name, value in (given or own).items() if value != own[name])
        if told:
            raise ValueError(f"the checkpoint's run had {told}: a run goes on with the data that it began with")
        if not trainer.lr_scheduler_configs:  # a checkpoint has the state, the run file has the learning rate
            for group, options in zip(_groups(trainer), self._options, strict=True):
                group |= options
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.cut(trainer.global_step, self.pending, Path(trainer.ckpt_path).parent.parent)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.pending = False
        _label(trainer, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.begun = True
        loop = trainer.fit_loop
        self.pending = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            _label(trainer, trainer.global_step - 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pending = False  # its row is logged; checkpoint callbacks come after this one

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batches that are done, in Lightning's five ways, whatever is under way."""
        loops, each = checkpoint["loops"]["fit_loop"], trainer.num_training_batches
        progress, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
        if isinstance(each, float):  # epochs without an end
            return
        done = progress["total"]["processed"]
        # a validation that is to be done belongs to the epoch of the batch before it
        epochs, batches = divmod(done - self.pending, each)
        batches += self.pending
        progress |= {"total": _all(done), "current": _all(batches), "is_last_batch": batches == each}
        counts = {"ready": epochs + 1, "started": epochs + 1, "processed": epochs, "completed": epochs}
        loops["epoch_progress"] |= {"total": counts, "current": {**counts}}
        if self.pending:  # for Lightning its first batch has begun
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            validation |= {"total": begun, "current": {**begun}, "is_last_batch": False}


class Interruption(Callback):
    """Ctrl-C and SIGTERM end a fit after the present step and its validation, when there is nothing to lose; a second Ctrl-C now.

    SIGTERM ends other commands after the present batch. Lightning does so with fits alone. The processes of a fit end after the
    same step, whichever of them is told.
    """

    received: int | None = None
    """The signal."""
    _began = 0.0
    _told = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.world_size > 1:
            # Lightning's calls the other processes from within the signal: one that waits for them at a checkpoint never hears it
            trainer._signal_connector._sigterm_notifier_fn = self._note  # type: ignore[method-assign]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.world_size > 1:
            told = torch.tensor(float(self._told), device=trainer.strategy.root_device)
            trainer._signal_connector.received_sigterm = bool(trainer.strategy.reduce(told, reduce_op="sum"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        # several processes get Ctrl-C at different steps: those end at once
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda number, frame: self._interrupt(trainer, number, frame))

    def _interrupt(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._began = number, time.monotonic()
            rank_zero_info("\nending after this step (Ctrl-C again: at once)")
            trainer._signal_connector.received_sigterm = True
        elif time.monotonic() - self._began > TWICE:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread() and hasattr(self, "_before"):
            signal.signal(signal.SIGINT, self._before)

    def _end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.received_sigterm and trainer.state.fn != TrainerFn.FITTING:
            raise SIGTERMException

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _end


def _stream(trainer: Trainer) -> dict[str, Any]:
    """What decides which training data come, in which order, as far as it can be told."""
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    # plain numbers: a run file's own types are no part of a checkpoint
    counts = {name: int(getattr(sampler, attribute, 0)) for name, attribute in STREAM.items()}
    data = trainer.datamodule
    ends = [float(end) for end in getattr(data, "value_range", None) or ()]
    shown = {"flip": bool(getattr(data, "flip", False)), "value_range": ends}
    return {"data": getattr(data, "name", type(data).__name__), **counts, **shown}


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


def _all(done: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), done)


def _label(trainer: Trainer, step: int) -> None:
    """Have Lightning call the next rows so."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = step
