"""Plain fixed-point iteration."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat
from torch import Tensor

from jiio_lightning.core.solvers.base import Method


class Picard(Method):
    """``v+ = (1 - damping) v + damping F(v)`` (Eq. 4, damped).

    Args:
        damping: 1 is the plain iteration. The joint iteration has its own damping in F (Eq. 11) and wants 1 here.

    Example:
        >>> import torch
        >>> Picard(damping=0.5).step(v=torch.tensor([[0.0]]), fv=torch.tensor([[3.0]]), state=None)[0].item()
        1.5
    """

    def __init__(self, damping: PositiveFloat = 1.0) -> None:
        self.damping = damping

    def init(self, v0: Tensor) -> None:
        return None

    def step(self, v: Tensor, fv: Tensor, state: None) -> tuple[Tensor, None]:
        return (fv if self.damping == 1.0 else v + self.damping * (fv - v)), None
