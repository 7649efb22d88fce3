"""Projected gradient ascent with a full solve of z and of the adjoint for each step: the baseline of Tables 2, 5 and 8."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from jiio_lightning.attacks.base import Attack
from jiio_lightning.attacks.target import Target
from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.core.nested import Nested
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.selection import Last, Selection


class PGD(Attack):
    r"""Steps of a fixed length along the implicit gradient (Madry et al. 2018, Eq. 6-7), in the threat model's norm.

    .. math:: \delta^+ = P\left(\delta + a \, \frac{g}{\|g\|}\right), \quad g = \nabla_\delta \, \ell(h(z^*(x + \delta)), y)

    The reference protocol is the default: 20 steps of 0.2 at eps = 1 from delta = 0, and the accuracy is read at the last
    iterate that was evaluated, before the last step.

    Args:
        steps: gradients taken.
        size: length of a step over eps.
        restarts: runs, the first from delta = 0, the others from random ones.
        random_start: the first one from a random delta too.
        forward: solve of z; 18 steps (Table 9, T_f) unless given.
        backward: solve of the adjoint; 20 steps (Table 9, T_b) unless given.
        warm: start each solve at the one before.
        selection: which of the evaluated iterates is judged; the last one unless given.
    """

    def __init__(
        self,
        steps: PositiveInt = 20,
        size: PositiveFloat = 0.2,
        restarts: PositiveInt = 1,
        random_start: bool = False,
        forward: FixedPoint | None = None,
        backward: FixedPoint | None = None,
        warm: bool = False,
        selection: Selection | None = None,
    ) -> None:
        super().__init__(restarts, random_start)
        self.steps = steps
        self.size = size
        self.forward = FixedPoint(Anderson(memory=6), 18) if forward is None else forward
        self.backward = FixedPoint(Anderson(memory=6), 20) if backward is None else backward
        self.warm = warm
        self.selection = Last() if selection is None else selection

    def perturb(self, target: Target, restart: int) -> Tensor:
        start = target.start(self.first_delta(target, restart))
        return self.solver(target.threat)(target.problem, start).v.x

    def solver(self, threat: ThreatModel) -> Nested:
        """The solver of Eq. 26 that this attack is under a threat model."""
        rule = threat.steepest(self.size * threat.eps)
        return Nested(rule, self.forward, self.backward, self.steps, self.warm, self.selection)
