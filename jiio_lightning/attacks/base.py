"""What every attack is: allowed perturbations, judged at z re-solved, of several restarts the strongest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from jiio_lightning.attacks.target import Target, Verdict


@dataclass(frozen=True)
class Attacked:
    """The outcome of an attack."""

    delta: Tensor  # perturbations (B, d)
    verdict: Verdict  # what the classifier says of them

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
        random_start: begin the first run at a random delta too, not at 0.

    Example:
        The weakest attack, for a run file's ``own_attacks``.

        >>> class RandomNoise(Attack):
        ...     def perturb(self, target, restart):
        ...         return target.random(restart)
        >>> RandomNoise(restarts=20).restarts
        20
    """

    def __init__(self, restarts: PositiveInt = 1, random_start: bool = False) -> None:
        self.restarts = restarts
        self.random_start = random_start

    def __call__(self, target: Target) -> Attacked:
        """Attack, and judge at z re-solved.

        Raises:
            ValueError: if a perturbation is not allowed: then the attack has a mistake, and no accuracy under it means anything.
        """
        best: Attacked | None = None
        for restart in range(self.restarts):
            delta = self.perturb(target, restart).detach()
            target.threat.check(target.pixels, delta)  # an attack may be anybody's
            found = Attacked(delta, target.judge(delta))
            best = found if best is None else best.or_stronger(found)
        assert best is not None  # restarts >= 1
        return best

    @abstractmethod
    def perturb(self, target: Target, restart: int) -> Tensor:
        """Allowed perturbations ``(B, d)`` from the ``restart``-th start."""

    def first_delta(self, target: Target, restart: int) -> Tensor:
        """Where the ``restart``-th run begins ``(B, d)``: the first at 0 unless ``random_start``, the others at random."""
        return target.random(restart) if self.random_start or restart else target.zero()


class NoAttack(Attack):
    """Clean images."""

    def perturb(self, target: Target, restart: int) -> Tensor:
        return target.zero()
