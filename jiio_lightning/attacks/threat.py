"""What an attacker may do to an image: the allowed perturbations, and the steps that suit their norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jiio_lightning.core.projections import Box, BoxedBall, L2Ball
from jiio_lightning.core.steps import Normalised, Schedule, Sign, StepRule

Norm = Literal["l2", "linf"]
FAR = 1e3
"""Radii that are as good as infinity for float32."""
SLACK = 1e-5
"""How far a perturbation may be outside by rounding, relative to eps."""


@dataclass(frozen=True)
class ThreatModel:
    r"""Perturbations :math:`\|\delta\| \le \epsilon` of images in [0, 1] (Eq. 25).

    Args:
        eps: radius of the ball, in units of pixels in [0, 1].
        norm: ``l2`` (Sec. 4.3) or ``linf``.
        pixel_box: keep the attacked image in [0, 1] as well; the paper does not.

    Raises:
        ValueError: if eps is not positive and finite, or the norm is another.
    """

    eps: float
    norm: Norm = "l2"
    pixel_box: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.eps < math.inf:
            raise ValueError(f"an attack needs eps > 0, in units of pixels in [0, 1], got {self.eps}")
        if self.norm not in ("l2", "linf"):
            raise ValueError(f"an attack's norm is l2 or linf, got {self.norm!r}")

    def projection(self, image: Tensor) -> Callable[[Tensor], Tensor]:
        """The Euclidean projection of perturbations ``(B, d)`` of images ``(B, d)`` on the allowed ones, exact for each set."""
        if self.norm == "linf":
            if not self.pixel_box:
                return Box(-self.eps, self.eps)
            return Box((-image).clamp_min(-self.eps), (1 - image).clamp_max(self.eps))
        ball = L2Ball(self.eps)
        return BoxedBall(ball, Box(-image, 1 - image)) if self.pixel_box else ball

    def steepest(self, size: float, schedule: Schedule | None = None) -> StepRule:
        """The step of a given length in this norm."""
        return Normalised(size, schedule) if self.norm == "l2" else Sign(size, schedule)

    def length(self, delta: Tensor) -> Tensor:
        """Norm of each perturbation ``(B,)``."""
        return torch.linalg.vector_norm(delta, ord=2 if self.norm == "l2" else math.inf, dim=1)

    def farthest(self, image: Tensor, direction: Tensor) -> Tensor:
        """The allowed perturbations ``(B, d)`` of images ``(B, d)`` that go farthest along directions ``(B, d)``; 0 along 0."""
        rule = self.steepest(FAR * self.eps)  # the projection of a far point: with a pixel box, of ever more pixels at its walls
        move, _ = rule.move(-direction, rule.init(direction), step=0, max_steps=1)
        return self.projection(image)(move)

    def draw(self, image: Tensor, generators: list[torch.Generator]) -> Tensor:
        """A random allowed perturbation of each image ``(B, d)``: uniform in the ball, then projected."""
        rows = [self._draw(image.shape[1], generator) for generator in generators]
        return self.projection(image)(torch.stack(rows).to(image))

    def _draw(self, width: int, generator: torch.Generator) -> Tensor:
        if self.norm == "linf":
            return self.eps * (2 * torch.rand(width, generator=generator) - 1)
        direction = torch.randn(width, generator=generator)
        # The root makes it uniform in the ball, whose volume within r grows as r^width.
        return self.eps * torch.rand((), generator=generator) ** (1 / width) * direction / torch.linalg.vector_norm(direction)

    def check(self, image: Tensor, delta: Tensor) -> None:
        """Refuse perturbations of images, both ``(B, d)``, that are not allowed, by a ValueError with the largest violation."""
        if not bool(torch.isfinite(delta).all()):
            raise ValueError("an attack returned a perturbation that is not finite")
        longest = float(self.length(delta).max())
        if longest > self.eps * (1 + SLACK):
            raise ValueError(f"an attack left its ball: {self.norm} norm {longest:.7g} where eps is {self.eps:g}")
        attacked = image + delta
        if self.pixel_box and float((attacked - attacked.clamp(0, 1)).abs().max()) > SLACK:
            raise ValueError("an attack left the pixel box [0, 1]: project its perturbations with ThreatModel.projection")
