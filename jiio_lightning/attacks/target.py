"""What an attack is aimed at, and how its outcome is judged: at an equilibrium solved again, tightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented
from jiio_lightning.models.interface import Classifier
from jiio_lightning.randomness import sample_generators

Resolve = Callable[[InnerProblem, Tensor, int], tuple[Tensor, Tensor]]
"""Solves z at a given x, tightly: ``(problem, x (B, d), n)`` to z ``(B, n)`` and its relative residual ``(B,)``."""

Cell = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Verdict:
    """What the classifier says of perturbed images.

    Args:
        logits: ``(B, num_classes)`` at z solved again.
        correct: ``(B,)`` bool.
        loss: cross-entropy ``(B,)``.
        residual: relative residual of that solve ``(B,)``.
    """

    logits: Tensor
    correct: Tensor
    loss: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Target:
    r"""A classifier with labelled images and what may be done to them: the inner problem of Eq. 26.

    .. math:: \min_{\delta, z} -\ell(h_\theta(z), y) \quad \text{s.t.} \quad
              z = f_\theta(z, x + \delta), \; \|\delta\| \le \epsilon

    Args:
        net: the classifier.
        image: ``(B, C, H, W)`` in [0, 1].
        label: ``(B,)``.
        index: of the samples in their data set ``(B,)``: random starts are functions of it.
        threat: the allowed perturbations.
        resolve: the tight solve behind a verdict.
        seed: of the random starts.

    Raises:
        ValueError: if images or labels do not fit the net, or an image leaves [0, 1].
    """

    net: Classifier
    image: Tensor
    label: Tensor
    index: Tensor
    threat: ThreatModel
    resolve: Resolve
    seed: int = 0

    def __post_init__(self) -> None:
        shape, classes = tuple(self.image.shape[1:]), self.net.num_classes
        if shape != tuple(self.net.image_shape):
            raise ValueError(
                f"the data has images of {shape} and the net wants {tuple(self.net.image_shape)}: "
                "set model.net.image_shape to the data's, or choose other data"
            )
        low, high = float(self.image.amin()), float(self.image.amax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"eps is in units of pixels in [0, 1], the images go from {low:.3g} to {high:.3g}: set data.value_range: [0, 1]"
            )
        if not 0 <= int(self.label.amin()) <= int(self.label.amax()) < classes:
            raise ValueError(
                f"labels go from {int(self.label.amin())} to {int(self.label.amax())} and the net knows {classes} classes: "
                "set model.net.num_classes to the data's"
            )

    @property
    def pixels(self) -> Tensor:
        """The images as rows ``(B, d)``."""
        return self.image.flatten(1)

    @property
    def cell(self) -> Cell:
        """f of z and of the perturbation: ``(B, n), (B, d) -> (B, n)``."""
        pixels = self.pixels
        return lambda z, delta: self.net.f(z, pixels + delta)

    def cross_entropy(self, z: Tensor) -> Tensor:
        """``(B,)`` for z ``(B, n)``."""
        return F.cross_entropy(self.net.h(z), self.label, reduction="none")

    @property
    def problem(self) -> InnerProblem:
        """Eq. 26: the inner loss is minus the cross-entropy."""
        return InnerProblem(self.cell, lambda z, delta: -self.cross_entropy(z), self.threat.projection(self.pixels))

    def zero(self) -> Tensor:
        """No perturbation ``(B, d)``."""
        return torch.zeros_like(self.pixels)

    def random(self, draw: int) -> Tensor:
        """The ``draw``-th random allowed perturbation ``(B, d)``, a function of (seed, draw, index)."""
        return self.threat.draw(self.pixels, sample_generators(self.seed, draw, self.index))

    def start(self, delta: Tensor, warm: FixedPoint | None = None) -> Augmented:
        """Where a solve starts: mu = 0, and z = 0 or the equilibrium at the given delta ``(B, d)``."""
        start = Augmented.start(delta, self.net.hidden)
        if warm is None:
            return start
        with torch.no_grad():
            z = warm(lambda z: self.net.f(z, self.pixels + delta), start.z).value
        return Augmented(z, start.mu, delta)

    @torch.no_grad()
    def judge(self, delta: Tensor) -> Verdict:
        """What the classifier says at perturbations ``(B, d)``, z solved again from 0."""
        z, residual = self.resolve(self.problem, delta, self.net.hidden)
        logits = self.net.h(z)
        loss = F.cross_entropy(logits, self.label, reduction="none")
        return Verdict(logits, logits.argmax(dim=1) == self.label, loss, residual)
