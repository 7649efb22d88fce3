"""Random numbers of the optimisation as pure functions of (seed, step, sample), so that a resumed run is the run."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """Independent streams of one seed. The values are part of what a seed means: never renumber them."""

    PROBES = 0
    LATENT = 1
    MEASUREMENT = 2


def sample_generators(seed: int, step: int, index: Tensor, stream: Stream = Stream.PROBES) -> list[torch.Generator]:
    """One generator for each sample of a batch, the same on whichever rank and place of the batch the sample comes.

    Args:
        seed: of the run.
        step: optimiser step.
        index: of the samples in their data set ``(B,)``.
        stream: what the numbers are for.
    """
    keys = (np.random.SeedSequence([seed, step, int(i), stream]).generate_state(1, np.uint64)[0] for i in index.tolist())
    return [torch.Generator().manual_seed(int(key) % 2**63) for key in keys]
