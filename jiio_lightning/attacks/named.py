"""The attacks that tables and the command line call by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jiio_lightning.attacks.autoattack import AutoAttack
from jiio_lightning.attacks.base import Attack, NoAttack
from jiio_lightning.attacks.intermediate import IntermediateStates
from jiio_lightning.attacks.pgd import PGD
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.selection import LowestCost

CLEAN = "clean"
JIIO = "jiio"
"""The run file's ``solver.test``, from where the task begins a solve: a task makes this attack itself."""


def strong_pgd() -> PGD:
    """100 steps of 0.1 eps, 5 restarts, each solve starting at the one before, the worst iterate of each run."""
    solve = FixedPoint(Anderson(memory=6), 8)
    return PGD(100, 0.1, restarts=5, forward=solve, backward=solve, warm=True, selection=LowestCost())


NAMED: Mapping[str, Callable[[], Attack]] = {
    CLEAN: NoAttack,
    "pgd": PGD,
    "pgd_strong": strong_pgd,
    "autoattack": AutoAttack,
    "intermediate": IntermediateStates,
}
