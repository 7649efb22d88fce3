"""Commands of jiio one after the other, in one of several processes whose training batches are of 1, 1, 2 and 4 samples.

Run by test_ddp.py: ``torchrun ddp_run.py COMMANDS``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jiio_lightning.cli import leave_process_group, run
from jiio_lightning.data.sampler import Draw, TrainBatches

even = TrainBatches.__iter__


def uneven(self: TrainBatches) -> Iterator[Draw]:
    for draw in even(TrainBatches(range(self.length), self.block, self.seed, done=self.done)):
        yield Draw(draw.epoch, np.split(draw.rows, (1, 2, 4))[self.rank])


if __name__ == "__main__":
    TrainBatches.__iter__ = uneven
    for command in json.loads(Path(sys.argv[1]).read_text()):
        run(command)
    leave_process_group()
