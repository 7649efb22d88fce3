"""Which of the evaluated iterates a solve returns, decided for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jiio_lightning.core.solvers.observers import Snapshot


class Selection(ABC):
    """Compares the best snapshot so far with the present one; what is not finite is never accepted."""

    def better(self, best: Snapshot | None, now: Snapshot) -> Snapshot:
        """The best snapshot after this one, sample by sample."""
        if best is None:
            return now
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
    """The last finite iterate."""

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return torch.ones_like(now.cost, dtype=torch.bool)


class LowestResidual(Selection):
    """The iterate nearest to its fixed point."""

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return _worst(now) < _worst(best)


class LowestCost(Selection):
    """The iterate of least cost (C.3). Off the constraint a low cost may be an illusion: look at the feasible cost."""

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        return now.cost < best.cost


class CostResidualTrade(Selection):
    """The trade of A.2 as in the released code.

    Accept the first iterates; then one of lower residual, or of lower cost whose residual is below ``slack`` times the best's.

    Args:
        warmup: iterates that are accepted without a test.
        slack: by how much the residual may exceed the best's for a lower cost.
    """

    def __init__(self, warmup: int = 10, slack: float = 1.3) -> None:
        self.warmup = warmup
        self.slack = slack

    def accept(self, best: Snapshot, now: Snapshot) -> Tensor:
        if now.step < self.warmup:
            return torch.ones_like(now.cost, dtype=torch.bool)
        cheaper = (now.cost < best.cost) & (_worst(now) < self.slack * _worst(best))
        return (_worst(now) < _worst(best)) | cheaper


def _worst(snapshot: Snapshot) -> Tensor:
    """The largest of a sample's residuals ``(B,)``."""
    return snapshot.residual.amax(dim=1)
