"""Which samples a batch holds: a pure function of (seed, epoch), shared out among the processes. And the loader of batches."""

from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from jiio_lightning.data.errors import DataError
from jiio_lightning.randomness import epoch_order


class Draw(NamedTuple):
    """One batch to be: what a data set needs to gather it, in whichever process."""

    epoch: int
    rows: np.ndarray  # (B,) int64, positions in the split


class TrainBatches(DistributedSampler[Draw]):
    """Shuffled batches as one endless stream, in which a run is where its number of batches done says.

    With n batches in an epoch, batch number b is batch ``b % n`` of epoch ``b // n``: nothing else needs to be known to go on
    after an interruption, wherever it was. Every process gets the same number of batches, so that none waits for another: batch b
    of R processes is rows ``b B R .. (b + 1) B R`` of the epoch's order, dealt out in turn, and two processes with batches of B
    see what one process with batches of 2 B sees, and so do two batches of B whose gradients make one step. The rest of an order,
    less than one step, is left out; it is another rest in the next epoch. It is a ``DistributedSampler`` so that Lightning never
    replaces it by one of its own.

    Args:
        dataset: of which the length is needed.
        batch_size: samples in a batch of one process.
        done: number of batches that the run has done; by default what ``set_epoch`` says.
        accumulated: batches whose gradients make one step.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        done: Callable[[], int] | None = None,
        accumulated: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.length = len(dataset)
        self.block = batch_size * world_size
        self.done = done or (lambda: self.epoch * len(self))
        self.accumulated = accumulated
        if not len(self):
            step = "one batch" if accumulated == 1 else f"{accumulated} batches"
            raise DataError(
                f"the training split has {self.length} samples, less than {step} of {batch_size} for each of {world_size}"
                " processes: lower batch_size or raise train_limit."
            )

    def __len__(self) -> int:
        return self.length // (self.block * self.accumulated) * self.accumulated

    def __iter__(self) -> Iterator[Draw]:
        done = self.done()
        for number in range(done, done + len(self)):
            epoch, batch = divmod(number, len(self))
            rows = epoch_order(self.seed, epoch, self.length)[batch * self.block : (batch + 1) * self.block]
            # a copy: the order is cached, and the index of a batch would share its memory
            yield Draw(epoch, rows[self.rank :: self.num_replicas].copy())


class EvalBatches(DistributedSampler[Draw]):
    """Batches in order, each sample in one process and in one batch, none padded: a mean over them is the mean."""

    def __init__(self, dataset: Sized, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.rows = np.arange(len(dataset))[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        for start in range(0, len(self.rows), self.batch_size):
            yield Draw(0, self.rows[start : start + self.batch_size].copy())


class BatchLoader(DataLoader[Any]):
    """A DataLoader whose order follows from the trainer's progress: there is nothing for a checkpoint to hold.

    The two empty methods tell Lightning that it can be resumed within an epoch.
    """

    def __iter__(self) -> Any:
        # glibc returns large blocks to the system until it has seen a larger one freed, and takes up to 32 MiB for a lesson:
        # paging in the memory of every batch anew took a third of the loader's time
        torch.empty(31 << 20, dtype=torch.uint8)
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def batches_done(trainer: Trainer) -> int:
    """How many training batches a run has done, those before an interruption included.

    Unlike the number of epochs, and of batches within one, it means the same whenever the checkpoint was written: in an epoch,
    after its validation, at its end, or by an exception in a step (which ``ready`` counts already).
    """
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
