"""The paper's attack: z, mu and delta in one iteration (Sec. 4.3)."""

from __future__ import annotations

from collections.abc import Callable

from jsonargparse.typing import PositiveInt
from torch import Tensor

from jiio_lightning.attacks.base import Attack
from jiio_lightning.attacks.target import Target
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented


class SolverAttack(Attack):
    """Any inner solver as an attack: Joint (the paper's, 80 steps in Table 2), Nested, or your own.

    Args:
        solver: of Eq. 26; its step in x has to suit the norm (core.steps.Normalised for l2, Sign for linf).
        warm: solves z at the start first; from z = 0 otherwise.
        restarts: runs, the first from delta = 0, the others from random ones.
        random_start: the first one from a random delta too.
        first: where the first run begins instead: v0 of a target.
    """

    def __init__(
        self,
        solver: InnerSolver,
        warm: FixedPoint | None = None,
        restarts: PositiveInt = 1,
        random_start: bool = False,
        first: Callable[[Target], Augmented] | None = None,
    ) -> None:
        super().__init__(restarts, random_start)
        self.solver = solver
        self.warm = warm
        self.first = first

    def perturb(self, target: Target, restart: int) -> Tensor:
        if self.first is not None and restart == 0:
            start = self.first(target)
        else:
            start = target.start(self.first_delta(target, restart), self.warm)
        return self.solver(target.problem, start).v.x
