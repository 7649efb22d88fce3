"""The loader of batches that are drawn whole, and where in their stream a run is."""

from typing import Any

from pytorch_lightning import Trainer
from torch.utils.data import DataLoader


class BatchLoader(DataLoader):
    """A DataLoader whose order follows from the trainer's progress: there is nothing for a checkpoint to keep.

    The two empty methods tell Lightning that it can be resumed within an epoch.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def batches_done(trainer: Trainer) -> int:
    """How many training batches a run has done, those before an interruption included.

    Unlike the number of epochs, and of batches within one, it means the same whenever the checkpoint was written:
    in an epoch, after its validation, at its end, or by an exception in a step (which ``ready`` counts already).
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed
