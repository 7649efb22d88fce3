"""The attacks that tables and the command line call by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from jiio_lightning.attacks.autoattack import AutoAttack
from jiio_lightning.attacks.base import Attack, NoAttack
from jiio_lightning.attacks.intermediate import IntermediateStates
from jiio_lightning.attacks.joint import SolverAttack
from jiio_lightning.attacks.pgd import PGD
from jiio_lightning.attacks.target import Target
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.selection import LowestCost

CLEAN = "clean"
JIIO = "jiio"
"""The run file's ``solver.test``: its budget and its step belong to the solver."""


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


def named_attack(
    name: str, solver: InnerSolver, warm: FixedPoint | None = None, first: Callable[[Target], Tensor] | None = None
) -> Attack:
    """An attack by its name.

    Args:
        name: ``jiio`` or a key of ``NAMED``.
        solver: of ``jiio``.
        warm: of ``jiio``.
        first: of ``jiio``.

    Raises:
        ValueError: for a name that nobody has.
    """
    if name == JIIO:
        return SolverAttack(solver, warm, first=first)
    if name not in NAMED:
        raise ValueError(f"there is no attack {name!r}: choose from {', '.join([*NAMED, JIIO])}")
    return NAMED[name]()
