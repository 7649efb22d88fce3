"""What may look at a solve while it runs: a trace for plots, one random iterate a sample for Eq. 27."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """An evaluated iterate.

    Example:
        >>> now = Snapshot(step=0, value=torch.ones(2, 3), residual=torch.zeros(2, 1), cost=torch.tensor([1.0, torch.nan]))
        >>> now.is_finite().tolist()
        [True, False]
    """

    step: int  # its number, from 0
    value: Tensor  # iterate (B, N)
    residual: Tensor  # distance of each block from its fixed point (B, R)
    cost: Tensor  # inner loss (B,)

    @cached_property
    def worst(self) -> Tensor:
        """The largest of a sample's residuals ``(B,)``."""
        return self.residual.amax(dim=1)

    def is_finite(self) -> Tensor:
        """``(B,)`` bool: residual and cost are finite (a NaN anywhere in a row of F(v) makes its residual NaN)."""
        return self._finite

    @cached_property
    def _finite(self) -> Tensor:
        # Residuals are no less than 0, and amax and maximum hand NaN on: half the operations of isfinite().
        return torch.maximum(self.worst, self.cost.abs()) < torch.inf


Observer = Callable[[Snapshot], None]


class Trace:
    """Each iterate with its cost, its residuals and the seconds since the trace was made.

    Reading the clock after a device has finished needs a synchronisation: use it to plot, not in training.

    Example:
        >>> from jiio_lightning.core.solvers import Last, Picard, solve
        >>> from jiio_lightning.core.solvers.base import plain_map
        >>> trace = Trace()
        >>> halve = plain_map(lambda v: v / 2)
        >>> solution = solve(Picard(), halve, torch.ones(1, 1), max_steps=3, selection=Last(), observers=(trace,))
        >>> [now.value.item() for now in trace.snapshots]
        [1.0, 0.5, 0.25]
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.seconds: list[float] = []
        self.snapshots: list[Snapshot] = []

    def __call__(self, now: Snapshot) -> None:
        if now.value.is_cuda:  # kernels run later than the host that launches them
            torch.cuda.synchronize(now.value.device)
        self.seconds.append(time.perf_counter() - self.began)
        self.snapshots.append(now)


class RandomIterate:
    """Keeps one iterate of the trajectory for each sample, drawn uniformly from a budget of ``max_steps`` (A.1).

    A sample that stops, or is not finite, before its draw keeps its last finite iterate.

    The uniform numbers ``draw`` in [0, 1), ``(B,)``, say which iterate each sample keeps, as a share of the budget.

    Example:
        >>> iterate = RandomIterate(draw=torch.tensor([0.0, 0.99]), max_steps=5)
        >>> for step in range(5):
        ...     iterate(Snapshot(step, torch.full((2, 1), float(step)), torch.zeros(2, 1), torch.zeros(2)))
        >>> iterate.value.flatten().tolist()  # of the steps 0 to 4, the first for one sample and the last for the other
        [1.0, 4.0]
    """

    def __init__(self, draw: Tensor, max_steps: int) -> None:
        # Not the start where there is another: at z = 0 a group norm sees a constant map, and its Jacobian there is an artefact
        # of its epsilon (about 300 times larger than one step later), which would drown the penalty of Eq. 27.
        self.chosen = 1 + (draw * (max_steps - 1)).long()
        self.value: Tensor | None = None

    def __call__(self, now: Snapshot) -> None:
        if self.value is None:
            self.value, self.chosen = now.value, self.chosen.to(now.value.device)
            return
        take = (self.chosen >= now.step) & now.is_finite()
        self.value = torch.where(take.unsqueeze(1), now.value, self.value)
