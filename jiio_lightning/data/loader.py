"""The loader of batches that are drawn whole, and where in their stream a run is."""

from typing import Any

import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader


class BatchLoader(DataLoader[Any]):
    """A DataLoader whose order follows from the trainer's progress: there is nothing for a checkpoint to keep.

    The two empty methods tell Lightning that it can be resumed within an epoch.
    """

    def __iter__(self) -> Any:
        keep_freed_memory()
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def keep_freed_memory() -> None:
    """Have glibc keep the memory of one batch for the next.

    It returns large blocks to the system until it has seen a larger one freed, and takes up to 32 MiB for a lesson.
    Paging in the memory of every batch anew took a third of the loader's time.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def batches_done(trainer: Trainer) -> int:
    """How many training batches a run has done, those before an interruption included.

    Unlike the number of epochs, and of batches within one, it means the same whenever the checkpoint was written:
    in an epoch, after its validation, at its end, or by an exception in a step (which ``ready`` counts already).
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
