"""The loader of batches that are drawn whole, and where to go on after a resume."""

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


def resume_point(trainer: Trainer) -> tuple[int, int]:
    """The epoch and the batch in it with which training begins or goes on.

    A checkpoint may be written within an epoch, after its last batch, or after its end; ``processed`` counts what
    is done in each of them (``ready`` also counts a batch in which an exception was raised).
    """
    fit_loop = trainer.fit_loop
    epoch, batch = fit_loop.epoch_progress.current, fit_loop.epoch_loop.batch_progress
    if not fit_loop.restarting:
        return epoch.processed, 0
    if batch.is_last_batch and batch.current.processed == batch.current.ready:
        return epoch.started, 0
    return epoch.processed, batch.current.processed
