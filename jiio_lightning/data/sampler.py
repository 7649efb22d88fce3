"""Which samples a batch holds: a pure function of (seed, epoch), shared out among the processes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.randomness import epoch_order


class Draw(NamedTuple):
    """One batch to be: what a data set needs to gather it, in whichever process."""

    epoch: int
    rows: np.ndarray  # (B,) int64, positions in the split


class TrainBatches(DistributedSampler[Draw]):
    """Shuffled batches; every process gets the same number of them, so that none waits for another.

    Batch b of R processes is rows ``b B R .. (b + 1) B R`` of the epoch's order, dealt out in turn: two processes
    with batches of B see what one process with batches of 2 B sees. The rest of the order, less than one such
    block, is left out of this epoch; it is another rest in the next.

    It is a ``DistributedSampler`` so that Lightning calls ``set_epoch`` and never replaces it by its own.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed, drop_last=True)
        self.length = len(dataset)  # type: ignore[arg-type]
        self.batch_size = batch_size
        self.first = 0
        if len(self) == 0:
            raise DataError(
                f"the training split has {self.length} samples, less than one batch of {batch_size} for each of"
                f" {world_size} processes: lower batch_size or raise train_limit."
            )

    def start(self, epoch: int, batch: int) -> None:
        """Go on at a batch of an epoch; later epochs are whole again."""
        self.epoch, self.first = epoch, batch

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; for the epoch that is resumed, Lightning calls this after ``start``."""
        if epoch != self.epoch:
            self.start(epoch, 0)

    def __len__(self) -> int:
        """Batches of a whole epoch, also for one that is resumed: Lightning counts from its beginning."""
        return self.length // (self.batch_size * self.num_replicas)

    def __iter__(self) -> Iterator[Draw]:
        order = epoch_order(self.seed, self.epoch, self.length)
        block = self.batch_size * self.num_replicas
        for batch in range(self.first, len(self)):
            rows = order[batch * block : (batch + 1) * block]
            yield Draw(self.epoch, rows[self.rank :: self.num_replicas])


class EvalBatches(DistributedSampler[Draw]):
    """Batches in order, each sample in one process and in one batch, none padded: a mean over them is the mean."""

    def __init__(self, dataset: Dataset, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        self.rows = np.arange(len(dataset))[rank::world_size]  # type: ignore[arg-type]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        for start in range(0, len(self.rows), self.batch_size):
            yield Draw(0, self.rows[start : start + self.batch_size])
