"""What commands measure on: the weights of a checkpoint, samples of the test split, and where solves of them start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities import move_data_to_device

from jiio_lightning.callbacks.finite import check_batch
from jiio_lightning.commands.checkpoint import read_checkpoint
from jiio_lightning.commands.contenders import Start
from jiio_lightning.core.state import Augmented
from jiio_lightning.tasks.base import JIIOTask


def load(
    trainer: Trainer, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str | None, check_start: bool = True
) -> None:
    """Take the weights of a checkpoint, if there is one, and prepare the test split; the model is then ready to be evaluated.

    Raises:
        ValueError: if the checkpoint cannot be used, or (``check_start``) has no learned start and the solver asks for one.
    """
    datamodule.prepare_data()
    datamodule.setup("test")
    if ckpt_path is not None:
        model.load_state_dict(read_checkpoint(ckpt_path)["state_dict"])
    for callback in trainer.callbacks:  # as Lightning does before its own commands: the model gets its solver here
        callback.setup(trainer, model, "test")
    model.to(trainer.strategy.root_device).eval()
    if check_start and isinstance(model, JIIOTask):
        model.uses_learned_start()


def groups(datamodule: LightningDataModule, samples: int, count: int, model: JIIOTask) -> list[Any]:
    """The first ``count`` batches of ``samples`` test samples each.

    Raises:
        ValueError: if there are fewer.
    """
    pieces: list[Any] = []
    for batch in datamodule.test_dataloader():
        check_batch(batch, "test")
        size = len(batch.index)
        pieces += [type(batch)(*(part[at : at + samples] for part in batch)) for at in range(0, size - samples + 1, samples)]
        if len(pieces) >= count:
            return [move_data_to_device(piece, model.device) for piece in pieces[:count]]
    raise ValueError(
        f"the test batches have {len(pieces)} groups of {samples} samples, {count} are wanted: "
        f"set data.eval_batch_size to at least {samples}, or data.test_limit higher"
    )


def first(datamodule: LightningDataModule, n: int | None, model: JIIOTask) -> list[Any]:
    """The test batches that hold the first n samples, or all samples there are: for None, and where there are fewer."""
    batches: list[Any] = []
    for batch in datamodule.test_dataloader():
        check_batch(batch, "test")
        left = None if n is None else n - sum(len(given.index) for given in batches)
        batches.append(move_data_to_device(type(batch)(*(part[:left] for part in batch)), model.device))
        if left is not None and left <= len(batch.index):
            break
    return batches


@torch.no_grad()
def starts(model: JIIOTask, batch: Any) -> dict[Start, Callable[[], Augmented]]:
    """What makes the start of a batch's solve, for each place where it can begin."""
    training = model.start(batch)
    found: dict[Start, Callable[[], Augmented]] = {
        "zero": partial(Augmented.start, training.x, training.hidden),
        "training": partial(model.start, batch),
    }
    fitted = model.learned_start is not None and model.learned_start.fitted
    return found | ({"learned": partial(model.at_learned_start, batch)} if fitted else {})
