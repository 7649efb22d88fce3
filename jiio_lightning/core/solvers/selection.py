"""Which of the evaluated iterates a solve returns, decided for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import Tensor

from jiio_lightning.core.solvers.observers import Snapshot


class Selection(ABC):
    """Compares the best snapshot so far with the present one; what is not finite is never accepted.

    Example:
        >>> class First(Selection):
        ...     def accept(self, best, now):
        ...         return torch.zeros_like(now.cost, dtype=torch.bool)
        >>> snapshots = [Snapshot(step, torch.ones(1, 1), torch.ones(1, 1), torch.ones(1) * step) for step in range(3)]
        >>> First().better(snapshots[0], snapshots[2]).cost.item()
        0.0
    """

    def better(self, best: Snapshot | None, now: Snapshot) -> Snapshot:
        """The best snapshot after this one, sample by sample."""
        if best is None:
            return now
        # The first snapshot is taken as it comes: the best one may not be finite.
        accept = now.is_finite() & (self.accept(best, now) | ~best.is_finite())
        return Snapshot(
            now.step,
            torch.where(accept.unsqueeze(1), now.value, best.value),
            torch.where(accept.unsqueeze(1), now.residual, best.residual),
            torch.where(accept, now.cost, best.cost),
        )

    @abstractmethod
    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        """``(B,)`` bool: where the present iterate replaces the best one."""


class Last(Selection):
    """The last finite iterate.

    Example:
        >>> early, late = (Snapshot(step, torch.ones(1, 1), torch.ones(1, 1), torch.tensor([float(step)])) for step in (0, 1))
        >>> Last().better(early, late).cost.item()
        1.0
    """

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return torch.ones_like(now.cost, dtype=torch.bool)


class LowestResidual(Selection):
    """The iterate nearest to its fixed point.

    Example:
        >>> near, far = (Snapshot(0, torch.ones(1, 1), torch.tensor([[gap]]), torch.zeros(1)) for gap in (0.5, 2.0))
        >>> LowestResidual().better(near, far).residual.item()
        0.5
    """

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return now.worst < best.worst


class LowestCost(Selection):
    """The iterate of least cost (C.3). Where z is no equilibrium a low cost may be an illusion: look at the feasible cost.

    Example:
        >>> cheap, dear = (Snapshot(0, torch.ones(1, 1), torch.ones(1, 1), torch.tensor([cost])) for cost in (1.0, 3.0))
        >>> LowestCost().better(dear, cheap).cost.item()
        1.0
    """

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return now.cost < best.cost


class CostResidualTrade(Selection):
    """The trade of A.2 as in the released code.

    Accept the first iterates; then one of lower residual, or of lower cost whose residual is below ``slack`` times the best's.

    Args:
        warmup: iterates that are accepted without a test.
        slack: by how much the residual may exceed the best's for a lower cost.

    Example:
        >>> best = Snapshot(20, torch.ones(1, 1), residual=torch.tensor([[0.10]]), cost=torch.tensor([5.0]))
        >>> for gap in (0.12, 0.14):
        ...     now = Snapshot(21, torch.ones(1, 1), residual=torch.tensor([[gap]]), cost=torch.tensor([4.0]))
        ...     print(CostResidualTrade().accept(best, now).item())
        True
        False
    """

    def __init__(self, warmup: NonNegativeInt = 10, slack: PositiveFloat = 1.3) -> None:
        self.warmup = warmup
        self.slack = slack

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        if now.step < self.warmup:
            return torch.ones_like(now.cost, dtype=torch.bool)
        cheaper = (now.cost < best.cost) & (now.worst < self.slack * best.worst)
        return (now.worst < best.worst) | cheaper
