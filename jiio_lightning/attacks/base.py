"""What every attack is: perturbations that are allowed, judged at z solved again, the strongest of several restarts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio_lightning.attacks.target import Target, Verdict


@dataclass(frozen=True)
class Attacked:
    """The outcome of an attack.

    Args:
        delta: perturbations ``(B, d)``.
        verdict: what the classifier says of them.
    """

    delta: Tensor
    verdict: Verdict

    def or_stronger(self, other: Attacked) -> Attacked:
        """Sample by sample the one that fools; if both or none do, the one of larger cross-entropy."""
        mine, theirs = self.verdict, other.verdict
        better = torch.where(mine.correct == theirs.correct, theirs.loss > mine.loss, mine.correct)

        def pick(ours: Tensor, new: Tensor) -> Tensor:
            return torch.where(better.reshape(-1, *[1] * (ours.dim() - 1)), new, ours)

        parts = (pick(getattr(mine, name), getattr(theirs, name)) for name in ("logits", "correct", "loss", "residual"))
        return Attacked(pick(self.delta, other.delta), Verdict(*parts))


class Attack(ABC):
    """From a target to the strongest perturbations that it finds. The weights are read, never written.

    Args:
        restarts: runs from different starts, of which the strongest counts for each sample.

    Raises:
        ValueError: if there is not at least one run.
    """

    def __init__(self, restarts: int = 1) -> None:
        if restarts < 1:
            raise ValueError(f"an attack needs restarts >= 1, got {restarts}")
        self.restarts = restarts

    def __call__(self, target: Target) -> Attacked:
        """Attack, and judge at z solved again.

        Raises:
            ValueError: if a perturbation is not allowed: a mistake of the attack, which would make every figure worthless.
        """
        best: Attacked | None = None
        for restart in range(self.restarts):
            delta = self.perturb(target, restart).detach()
            target.threat.check(target.pixels, delta)
            found = Attacked(delta, target.judge(delta))
            best = found if best is None else best.or_stronger(found)
        assert best is not None  # restarts >= 1
        return best

    @abstractmethod
    def perturb(self, target: Target, restart: int) -> Tensor:
        """Allowed perturbations ``(B, d)`` from the ``restart``-th start."""


class NoAttack(Attack):
    """Clean images."""

    def perturb(self, target: Target, restart: int) -> Tensor:
        return target.zero()


def starting_point(target: Target, restart: int, random_start: bool) -> Tensor:
    """delta ``(B, d)``: 0 for the first run unless it is to be random, random for the others."""
    return target.random(restart) if random_start or restart else target.zero()
