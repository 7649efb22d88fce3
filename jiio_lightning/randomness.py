"""Random choices as pure functions of (seed, epoch or step, index), and of nothing else.

No choice depends on a global generator, so that the number of workers, the number of processes and an interruption leave all
of them as they were.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


class DataStream(IntEnum):
    """Independent streams of the seed of the data. The values are part of what a seed means: never renumber them."""

    ORDER = 0
    FLIP = 1
    TRAIN_EPISODE = 2
    VAL_EPISODE = 3
    TEST_EPISODE = 4
    POINTS = 5
    HELD_OUT = 6


class SampleStream(IntEnum):
    """Independent streams of the seed of a run, one number a sample. Never renumber them."""

    PROBES = 0
    LATENT = 1
    MEASUREMENT = 2
    START = 3


def generator(seed: int, stream: DataStream, *counters: int) -> np.random.Generator:
    """A generator of its own for each (seed, stream, counters)."""
    return np.random.default_rng([seed, stream, *counters])


@lru_cache(maxsize=2)  # every batch of an epoch asks for the same array
def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of an epoch: a permutation of ``0 .. length - 1``, shape ``(length,)``."""
    return generator(seed, DataStream.ORDER, epoch).permutation(length)


@lru_cache(maxsize=2)
def epoch_flips(seed: int, epoch: int, length: int) -> np.ndarray:
    """Which samples are mirrored in an epoch, one in two: bool ``(length,)``."""
    return generator(seed, DataStream.FLIP, epoch).random(length) < 0.5


def fixed_permutation(length: int, seed: int = 0) -> np.ndarray:
    """A permutation that no version of numpy changes, for splits: ``RandomState`` is frozen, ``Generator`` is not."""
    return np.random.RandomState(seed).permutation(length)


def sample_generators(seed: int, step: int, index: Tensor, stream: SampleStream = SampleStream.PROBES) -> list[torch.Generator]:
    """One generator for each sample of a batch, the same on whichever rank and place of the batch the sample comes.

    Args:
        seed: of the run.
        step: optimiser step.
        index: of the samples in their data set ``(B,)``.
        stream: what the numbers are for.
    """
    keys = (np.random.SeedSequence([seed, step, int(i), stream]).generate_state(1, np.uint64)[0] for i in index.tolist())
    return [torch.Generator().manual_seed(int(key) % 2**63) for key in keys]
