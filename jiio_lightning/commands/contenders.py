"""The solvers that ``jiio compare`` measures: what each is, where it starts and with which budgets."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jsonargparse.typing import PositiveInt

from jiio_lightning.attacks.pgd import PGD
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.nested import Nested
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.steps import Adam, Constant, Drop
from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.base import JIIOTask

AnySolver = TypeVar("AnySolver", bound=InnerSolver)
Family = Literal["paper", "nested", "learned", "joint"]
Start = Literal["zero", "training", "learned"]
STARTS: dict[Family, Start] = {"paper": "zero", "nested": "training", "learned": "learned"}
BASELINES: dict[Family, str] = {
    "paper": "the paper's Nested",
    "nested": "the strongest Nested",
    "learned": "the strongest Nested with our start",
}
"""The families that the default is compared with, and how a report calls them."""
DEFAULT = "default"
"""The run file's own ``solver.test`` among the contenders."""
LONG_ENOUGH = 12
"""Steps after which a solve has shown its peak of memory, as nearly as the budgets allow: its histories are allocated."""


@dataclass(frozen=True)
class Contender:
    """A solver with the budgets at which it is measured.

    Args:
        family: ``paper``, the paper's Nested; ``nested``, a stronger one; ``learned``, one from the learned start; ``joint``,
            anything else.
        solver: with all of its settings but the budget.
        budgets: steps in x. The x that is returned is the last one that was evaluated: it has moved once less.
        start: ``zero``, x where training starts and z = mu = 0; ``training``, where training starts; ``learned``, at the learned
            start. Unless given that of the family in this order, and for ``joint`` where the run file's solver starts. Making a
            start counts in the time of a solve.

    Raises:
        ValueError: without a budget, or for a family of Nested solvers with another solver.
    """

    family: Family
    solver: InnerSolver
    budgets: tuple[PositiveInt, ...]
    start: Start | None = None

    def __post_init__(self) -> None:
        if not self.budgets:
            raise ValueError("a contender needs one or more budgets")
        # sorted and without repeats: an anytime method passes through its budgets in this order, one Solve for each
        object.__setattr__(self, "budgets", tuple(sorted(set(self.budgets))))
        if self.family in BASELINES and not isinstance(self.solver, Nested):
            raise ValueError(f"the contenders of family {self.family} are Nested solvers, this one is {describe(self.solver)}")

    @property
    def anytime(self) -> bool:
        """Whether a solve with a smaller budget is the beginning of one with a larger budget."""
        # other schedules of the step, such as a cosine, end with the budget
        return isinstance(self.solver, Nested) and isinstance(getattr(self.solver.step, "schedule", None), Constant | Drop)

    @property
    def typical(self) -> int:
        """The budget at which memory is measured: a Nested solver has shown its peak after a step."""
        if isinstance(self.solver, Nested):
            return min(self.budgets)
        return min((budget for budget in self.budgets if budget >= LONG_ENOUGH), default=max(self.budgets))


def paper_baseline(model: JIIOTask) -> dict[str, Contender]:
    """The paper's Nested: Adam on x with three step sizes (Tables 3 and 9), or for attacks PGD with three (Table 2)."""
    if isinstance(model, AdversarialTraining):
        # the released code's size and longer ones, in units of eps: an attack is compared with PGD at its best
        pgd = {f"pgd_{size:g}": PGD(size=size).solver(model.threat) for size in (0.2, 0.4, 1.0)}
        return {name: Contender("paper", solver, tuple(range(1, 21))) for name, solver in pgd.items()}
    solves = FixedPoint(Anderson(memory=6), 18), FixedPoint(Anderson(memory=6), 20)  # Table 9: T_f, T_b
    return {f"adam_{size:g}": Contender("paper", Nested(Adam(size), *solves), tuple(range(1, 41))) for size in (0.1, 0.3, 1.0)}


def with_budget(solver: AnySolver, max_steps: int) -> AnySolver:
    """The same solver with another budget."""
    solver = copy.copy(solver)  # the run file's own stays as it is
    solver.max_steps = max_steps
    return solver


def describe(settings: Any) -> str:
    """A solver with everything that it was made of, ``Joint(step=SelfScaled(size=1.0, ...), ...)``."""
    if not type(settings).__module__.startswith("jiio_lightning."):
        return repr(settings)
    parts = ", ".join(f"{name}={describe(value)}" for name, value in vars(settings).items())
    return f"{type(settings).__name__}({parts})"
