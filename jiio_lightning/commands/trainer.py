"""Lightning's trainer with the commands that it lacks."""

from __future__ import annotations

from pytorch_lightning import Trainer

from jiio_lightning.commands.attack import attack
from jiio_lightning.commands.compare import compare
from jiio_lightning.commands.learn_start import learn_start
from jiio_lightning.commands.sample import sample


class JIIOTrainer(Trainer):
    """A Trainer that also learns starts, compares solvers, attacks classifiers and samples generators.

    All of its options are Lightning's.
    """

    learn_start = learn_start
    compare = compare
    attack = attack
    sample = sample
