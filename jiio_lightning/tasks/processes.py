"""What the processes of a run share: how many they are, and how much the batch of each counts."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many processes this run has."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def weighted(loss: Tensor, samples: int) -> Tensor:
    """A mean over the samples of this process, scaled so that its mean over the processes is the mean over all samples.

    DDP takes the mean of the processes' gradients, whatever the sizes of their batches. Every process has to call this.

    Example:
        >>> weighted(torch.tensor(2.0), samples=3).item()  # one process
        2.0
    """
    if processes() == 1:
        return loss
    total = torch.full_like(loss.detach(), samples)
    distributed.all_reduce(total)
    return loss * (samples * processes() / total)
