"""Euclidean projections for constraints on x: balls, boxes, and the intersection that bounded images need."""

from __future__ import annotations

import torch
from torch import Tensor


class L2Ball:
    """``||x||_2 <= radius`` for each sample.

    .. math:: P(x) = x \\min(1, r / \\|x\\|)

    Args:
        radius: r, in the units of x.

    Raises:
        ValueError: for a negative radius.
    """

    def __init__(self, radius: float) -> None:
        if radius < 0:
            raise ValueError(f"an L2 ball needs a radius >= 0, got {radius}")
        self.radius = radius

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``; differentiable twice away from the sphere."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return torch.where(norm > self.radius, x * (self.radius / norm), x)


class Box:
    """``low <= x <= high``, elementwise.

    Args:
        low: a number or a tensor that broadcasts to ``(B, d)``.
        high: likewise.
    """

    def __init__(self, low: Tensor | float, high: Tensor | float) -> None:
        self.low = low
        self.high = high

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``."""
        low = torch.as_tensor(self.low, dtype=x.dtype, device=x.device)
        high = torch.as_tensor(self.high, dtype=x.dtype, device=x.device)
        return torch.minimum(torch.maximum(x, low), high)


class BoxedBall:
    r"""The exact projection on ``{||x|| <= radius} and {low <= x <= high}``, for a box that contains 0.

    The KKT conditions of the projection give :math:`P(x) = \mathrm{clip}(x / (1 + \lambda))` with the least
    :math:`\lambda \ge 0` for which the ball holds: the norm falls with :math:`\lambda`, so that bisection finds it. (Projecting
    on one set after the other ends inside both but is not the nearest point.)

    Args:
        ball: the ball.
        box: a box that contains 0: for a perturbation, ``low = -image`` and ``high = 1 - image``.
        steps: bisections; 50 exhaust double precision.
    """

    def __init__(self, ball: L2Ball, box: Box, steps: int = 50) -> None:
        self.ball = ball
        self.box = box
        self.steps = steps

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``."""
        low = torch.zeros_like(x[:, :1])  # shrink factor 1 / (1 + lambda): too small
        high = torch.ones_like(low)  # no shrinking
        inside = self._norm(self.box(x)) <= self.ball.radius
        for _ in range(self.steps):
            middle = (low + high) / 2
            fits = self._norm(self.box(middle * x)) <= self.ball.radius
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return self.box(torch.where(inside, 1.0, low) * x)

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=1, keepdim=True)
