"""Random choices about data: pure functions of a seed, an epoch and an index, and of nothing else.

No choice depends on a global generator, so that the number of workers, the number of processes and an interruption
leave all of them as they were.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np

Array = np.ndarray


class Stream(IntEnum):
    """Independent streams of one seed. The values are part of what a seed means: never renumber them."""

    ORDER = 0
    FLIP = 1
    TRAIN_EPISODE = 2
    VAL_EPISODE = 3
    TEST_EPISODE = 4


def generator(seed: int, stream: Stream, *counters: int) -> np.random.Generator:
    """A generator of its own for each (seed, stream, counters)."""
    return np.random.default_rng([seed, stream, *counters])


@lru_cache(maxsize=2)  # every batch of an epoch asks for the same array
def epoch_order(seed: int, epoch: int, length: int) -> Array:
    """The order of an epoch: a permutation of ``0 .. length - 1``, shape ``(length,)``."""
    return generator(seed, Stream.ORDER, epoch).permutation(length)


@lru_cache(maxsize=2)
def epoch_flips(seed: int, epoch: int, length: int) -> Array:
    """Which samples are mirrored in an epoch, one in two: bool ``(length,)``."""
    return generator(seed, Stream.FLIP, epoch).random(length) < 0.5


def fixed_permutation(length: int, seed: int = 0) -> Array:
    """A permutation that no version of numpy changes, for splits: ``RandomState`` is frozen, ``Generator`` is not."""
    return np.random.RandomState(seed).permutation(length)
