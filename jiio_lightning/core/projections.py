"""Euclidean projections for constraints on x: balls, boxes, and the intersection that bounded images need."""

from __future__ import annotations

import torch
from torch import Tensor


def unconstrained(x: Tensor) -> Tensor:
    """The projection of a problem without a constraint.

    Example:
        >>> unconstrained(torch.tensor([[7.0]])).item()
        7.0
    """
    return x


class L2Ball:
    r"""``||x||_2 <= radius`` for each sample, the radius r in the units of x.

    .. math:: P(x) = x \min(1, r / \|x\|)

    Raises:
        ValueError: for a negative radius.

    Example:
        >>> L2Ball(1.0)(torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)).tolist()
        [[0.6, 0.8], [0.3, 0.4]]
    """

    def __init__(self, radius: float) -> None:
        if radius < 0:
            raise ValueError(f"an L2 ball needs a radius >= 0, got {radius}")
        self.radius = radius

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``; differentiable twice away from the sphere."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        # Clamped to the radius, the norm gives exactly 1 inside the ball, without a branch.
        return x * (self.radius / norm.clamp_min(max(self.radius, torch.finfo(x.dtype).tiny)))


class Box:
    """``low <= x <= high``, elementwise; a bound is a number or a tensor that broadcasts to ``(B, d)``.

    Example:
        >>> Box(0.0, 1.0)(torch.tensor([[-3.0, 0.5, 2.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """

    def __init__(self, low: Tensor | float, high: Tensor | float) -> None:
        self.low = low
        self.high = high

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``."""
        return x.clamp(min=self._bound(self.low, x)).clamp(max=self._bound(self.high, x))

    @staticmethod
    def _bound(bound: Tensor | float, x: Tensor) -> Tensor | float:
        # A number stays one: a tensor made of it would be a copy to the device that the host waits for.
        return bound.to(x) if isinstance(bound, Tensor) else bound


class BoxedBall:
    r"""The exact projection on ``{||x|| <= radius} and {low <= x <= high}``, for a box that contains 0.

    The KKT conditions of the projection give :math:`P(x) = \mathrm{clip}(t x)` with the largest :math:`t \le 1` for which the
    ball holds. :math:`\|\mathrm{clip}(t x)\|^2` is concave and piecewise linear in :math:`t^2`, with kinks where an element meets
    its bound: Newton's method climbs to the root from below and is exact once it knows which elements are clipped.

    For perturbations of an image the box has ``low = -image`` and ``high = 1 - image``. Images take 3 to 6 steps of Newton's
    method.

    Example:
        The first element meets its bound; the second gets what room the ball leaves.

        >>> x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
        >>> BoxedBall(L2Ball(1.0), Box(0.0, torch.tensor([0.28, 1.0])))(x).tolist()
        [[0.28, 0.96]]
    """

    def __init__(self, ball: L2Ball, box: Box, steps: int = 10) -> None:
        self.ball = ball
        self.box = box
        self.steps = steps

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, d)`` to ``(B, d)``; differentiable away from the kinks, through the last step alone."""
        # Projecting on one set after the other would end inside both, but not at the nearest point.
        with torch.no_grad():  # the last step has the derivative of the root, whatever led to it
            shrink = torch.ones_like(x[:, :1])
            for _ in range(self.steps):
                shrink = self._newton(x, shrink)
        return self.box(self._newton(x, shrink) * x)

    def _newton(self, x: Tensor, shrink: Tensor) -> Tensor:
        """The t ``(B, 1)`` at which the ball holds if the elements that are clipped at the present t stay so."""
        shrunk = shrink * x
        clipped = self.box(shrunk)
        free = clipped == shrunk
        room = self.ball.radius**2 - torch.where(free, 0.0, clipped).square().sum(dim=1, keepdim=True)
        length = torch.where(free, x, 0.0).square().sum(dim=1, keepdim=True)
        return (room.clamp_min(0.0) / length.clamp_min(torch.finfo(x.dtype).tiny)).sqrt().clamp_max(1.0)
