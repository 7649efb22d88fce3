"""What an attack is aimed at, and how its outcome is judged: at z re-solved to a tight tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented
from jiio_lightning.models.interface import Classifier
from jiio_lightning.randomness import SampleStream, sample_generators

Resolve = Callable[[InnerProblem, Tensor, int], tuple[Tensor, Tensor]]
"""Re-solves z at a given x: ``(problem, x (B, d), n)`` to z ``(B, n)`` and its relative residual ``(B,)``."""


@dataclass(frozen=True)
class Verdict:
    """What the classifier says of perturbed images."""

    logits: Tensor  # (B, num_classes) at the re-solved z
    correct: Tensor  # (B,) bool
    loss: Tensor  # cross-entropy (B,)
    residual: Tensor  # relative residual of z (B,)


@dataclass(frozen=True)
class Target:
    """Labelled images, a classifier and what may be done to them; ``AdversarialTraining.target`` makes one of a batch."""

    problem: InnerProblem  # Eq. 26 over the allowed perturbations, x = delta (B, C * H * W)
    net: Classifier
    image: Tensor  # (B, C, H, W) in [0, 1]
    label: Tensor  # (B,)
    index: Tensor  # (B,) of the samples in their data set: random starts are functions of it
    threat: ThreatModel
    resolve: Resolve  # the solve behind a verdict
    seed: int = 0  # of the random starts

    @property
    def pixels(self) -> Tensor:
        """The images as rows ``(B, C * H * W)``."""
        return self.image.flatten(1)

    def zero(self) -> Tensor:
        """No perturbation ``(B, d)``."""
        return torch.zeros_like(self.pixels)

    def random(self, draw: int) -> Tensor:
        """The ``draw``-th random allowed perturbation ``(B, d)``, a function of (seed, draw, index)."""
        return self.threat.draw(self.pixels, sample_generators(self.seed, draw, self.index, SampleStream.START))

    def start(self, delta: Tensor, warm: FixedPoint | None = None) -> Augmented:
        """Where a solve begins: delta ``(B, d)``, z = 0 or, by the solver ``warm``, the equilibrium at delta, and mu = 0."""
        start = Augmented.start(delta, self.net.hidden)
        if warm is None:
            return start
        with torch.no_grad():
            return replace(start, z=warm(lambda z: self.problem.f(z, delta), start.z).value)

    @torch.no_grad()
    def judge(self, delta: Tensor) -> Verdict:
        """What the classifier says at perturbations ``(B, d)``, z re-solved from 0."""
        z, residual = self.resolve(self.problem, delta, self.net.hidden)
        logits = self.net.h(z)
        loss = F.cross_entropy(logits, self.label, reduction="none")
        return Verdict(logits, logits.argmax(dim=1) == self.label, loss, residual)
