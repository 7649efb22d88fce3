"""The frontier of solvers on one batch: feasible cost and KKT residual against time, evaluations of f and memory.

``compare`` asks how much faster one method is than the paper's baseline; here every setting stands beside every other one. Each
(contender, budget) is a solve of its own, and all of them are timed in turn, round by round, so that what else the machine does
falls on all alike.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from jiio_lightning.commands.comparison import Bench, Comparison, Curve, Point, describe, with_budget
from jiio_lightning.commands.memory import peak_mib
from jiio_lightning.core.inner import RESIDUALS, InnerSolution, InnerSolver, SolveError
from jiio_lightning.core.kkt import kkt_residual
from jiio_lightning.core.nested import Nested

Family = Literal["paper", "nested", "started", "joint"]
Start = Literal["zero", "plain", "learned", "own"]
STARTS: dict[Family, Start] = {"paper": "zero", "nested": "plain", "started": "learned", "joint": "own"}
"""Where a family starts: at z = mu = 0; where training does; at the learned start; where the run file's solver does."""
DEFAULT = "default"
"""The run file's own ``solver.test`` among the contenders."""
RIVALS: dict[Family, str] = {
    "paper": "the paper's Nested",
    "nested": "the strongest Nested",
    "started": "the strongest Nested with our start",
}
"""The families that the default is compared with, and how they are called."""
LONG_ENOUGH = 12
"""Steps after which a solve has shown its peak of memory, as nearly as the budgets allow: its histories are allocated."""
FEASIBLE = 1e-2
"""Relative residual above which z solved again is no equilibrium, and the cost there no feasible one."""


@dataclass(frozen=True)
class Contender:
    """A solver with the budgets at which it is measured.

    Args:
        family: ``paper``, the paper's Nested; ``nested``, a stronger one; ``started``, one from the learned start; ``joint``,
            anything else.
        solver: with all of its settings but the budget.
        budgets: steps in x, each a solve of its own. The x that is returned is the last one that was looked at: it has moved
            once less.
        start: where one of the family ``joint`` starts; the others' starts are those of their family (``STARTS``). The making of
            a start is in the time of a solve.

    Raises:
        ValueError: for budgets that cannot be run, or a Nested family with another solver or a start that is not its own.
    """

    family: Family
    solver: InnerSolver
    budgets: tuple[int, ...]
    start: Start | None = None

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"a contender needs one or more budgets of at least 1 step, got {list(self.budgets)}")
        if self.family in RIVALS and not isinstance(self.solver, Nested):
            raise ValueError(f"the contenders of family {self.family} are Nested solvers, this one is {describe(self.solver)}")
        if self.family in RIVALS and self.start not in (None, STARTS[self.family]):
            raise ValueError(f"the contenders of family {self.family} start at {STARTS[self.family]}, not at {self.start}")

    @property
    def begins(self) -> Start:
        """Where it starts."""
        return self.start or STARTS[self.family]

    @property
    def typical(self) -> int:
        """The budget at which memory is measured: a Nested solver has shown its peak after a step."""
        if isinstance(self.solver, Nested):
            return min(self.budgets)
        return min((budget for budget in self.budgets if budget >= LONG_ENOUGH), default=max(self.budgets))


@dataclass(frozen=True, kw_only=True)
class Measured(Point):
    """A point with what it costs and how well it solves the problem.

    ``seconds`` is the median over the rounds.

    Args:
        seconds_low: of the fastest round.
        seconds_high: of the slowest.
        evaluations: of f, those of the start included.
        backwards: passes back through f.
        finite: share of samples that never met a value that is not finite.
        residuals: relative residuals of z (the violation of the constraint), mu and x at the returned iterate, medians.
        kkt: norm of all rows of Eq. 14 there, the median.
    """

    seconds_low: float
    seconds_high: float
    evaluations: int
    backwards: int
    finite: float
    residuals: dict[str, float]
    kkt: float

    @property
    def sound(self) -> bool:
        """Whether it can be compared: the cost is finite and z solved again an equilibrium."""
        return math.isfinite(self.cost) and self.resolve_residual < FEASIBLE


@dataclass(frozen=True)
class Entry:
    """What was measured of a contender.

    Args:
        name: of the contender.
        family: its own.
        start: where it starts.
        solver: all of its settings.
        points: one for each budget.
        peak_mib: memory that one solve allocates, at most.
    """

    name: str
    family: Family
    start: Start
    solver: str
    points: list[Measured]
    peak_mib: float

    @property
    def sound(self) -> list[Measured]:
        """The points that can be compared, in the order of time."""
        return sorted((point for point in self.points if point.sound), key=lambda point: point.seconds)

    def curve(self, method: str) -> Curve:
        """As one side of a comparison."""
        return Curve(method, self.name, self.solver, list(self.sound))


@dataclass(frozen=True)
class Front:
    """All contenders on one batch.

    Args:
        entries: one for each contender; one of them is the default.
        samples: in the batch.
        repeats: rounds.
        tolerance: as in :class:`Comparison`.

    Raises:
        SolveError: if no solve of the default ended at a feasible cost.
    """

    entries: list[Entry]
    samples: int
    repeats: int
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not self.default.sound:
            raise SolveError(
                "no solve of the default (solver.test) ended at a finite, feasible cost: check the checkpoint's weights, "
                f"--budgets and {self.default.solver}"
            )

    @property
    def default(self) -> Entry:
        """The run file's own solver."""
        return next(entry for entry in self.entries if entry.name == DEFAULT)

    @property
    def pareto(self) -> list[tuple[Entry, Measured]]:
        """The points that no other one beats in both cost and time, in the order of time."""
        places = [(entry, point) for entry in self.entries for point in entry.sound]
        found: list[tuple[Entry, Measured]] = []
        for entry, point in sorted(places, key=lambda place: (place[1].seconds, place[1].cost)):
            if not found or point.cost < found[-1][1].cost:
                found.append((entry, point))
        return found

    def against(self, family: Family) -> Comparison | None:
        """The default and a family of Nested solvers, whose fastest one to the target counts; None if none of them is sound."""
        curves = [entry.curve("nested") for entry in self.entries if entry.family == family and entry.sound]
        if not curves:
            return None
        return Comparison(self.default.curve("joint"), curves, {}, self.samples, self.repeats, tolerance=self.tolerance)

    @property
    def memory(self) -> float | None:
        """The default's peak memory over the least of the paper's Nested solvers; None without one."""
        peaks = [entry.peak_mib for entry in self.entries if entry.family == "paper"]
        return self.default.peak_mib / min(peaks) if peaks else None

    def record(self) -> dict[str, Any]:
        """Plain data for a JSON file; ``violation`` is the default's, where it is first at the target."""
        comparisons = {family: found for family in RIVALS if (found := self.against(family)) is not None}
        return {
            "samples": self.samples,
            "repeats": self.repeats,
            "tolerance": self.tolerance,
            "memory": self.memory,
            "against": {family: found.outcome | {"violation": violation(found)} for family, found in comparisons.items()},
            "pareto": [
                {"contender": entry.name, "seconds": point.seconds, "cost": point.cost, "steps": point.steps}
                for entry, point in self.pareto
            ],
            "contenders": {entry.name: asdict(entry) for entry in self.entries},
        }


def violation(comparison: Comparison) -> float:
    """Relative residual of z that the default returns where it is first at the target."""
    point = comparison.reached["joint"]
    assert isinstance(point, Measured)
    return point.residuals["z"]


class Passes:
    """Counts the evaluations of a cell, and the passes back through it."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.backwards = 0

    def watch(self, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same cell, counted."""

        def watched(*args: Tensor) -> Tensor:
            self.evaluations += 1
            image = f(*args)
            if image.requires_grad:
                image.register_hook(self._passed)
            return image

        return watched

    def _passed(self, cotangent: Tensor) -> None:
        self.backwards += 1


@contextmanager
def counted(net: nn.Module) -> Iterator[Passes]:
    """Passes through the f of a net, in all problems and starts that are made meanwhile."""
    passes = Passes()
    net.f = passes.watch(net.f)  # type: ignore[assignment, arg-type]  # an attribute, which hides the method
    try:
        yield passes
    finally:
        del net.f


def race(make: Callable[[], Bench], net: nn.Module, contenders: Mapping[str, Contender], repeats: int) -> list[Entry]:
    """Measure all contenders: each solve once to judge and count it, which warms up too; then ``repeats`` rounds of them all.

    Args:
        make: a bench on the batch.
        net: whose ``f`` the bench's problem has.
        contenders: by name.
        repeats: rounds.
    """
    pairs = [(name, budget) for name, contender in contenders.items() for budget in sorted(contender.budgets)]
    with parametrize.cached():
        with counted(net) as passes:
            bench = make()
            judged = {
                (name, budget): _judged(bench, passes, contenders[name], budget)
                for name, budget in tqdm(pairs, desc="judge", unit="solve")
            }
        bench = make()
        seconds: dict[tuple[str, int], list[float]] = {pair: [] for pair in pairs}
        for name, budget in tqdm(pairs * repeats, desc="time", unit="solve"):
            seconds[name, budget].append(_solve(bench, contenders[name], budget)[0])
        peaks = {name: _peak(bench, one) for name, one in tqdm(contenders.items(), desc="memory", unit="solve")}
    return [
        Entry(
            name,
            contender.family,
            contender.begins,
            describe(contender.solver),
            [_timed(judged[name, budget], seconds[name, budget]) for budget in sorted(contender.budgets)],
            peaks[name],
        )
        for name, contender in contenders.items()
    ]


def _solve(bench: Bench, contender: Contender, budget: int) -> tuple[float, InnerSolution]:
    starts = {"zero": bench.cold, "plain": bench.plain, "learned": bench.learned, "own": bench.start}
    return bench.timed(with_budget(contender.solver, budget), starts[contender.begins])


def _peak(bench: Bench, contender: Contender) -> float:
    return peak_mib(partial(_solve, bench, contender, contender.typical), bench.x.device)


def _judged(bench: Bench, passes: Passes, contender: Contender, budget: int) -> dict[str, Any]:
    """Everything about a solve but its time."""
    passes.evaluations = passes.backwards = 0
    _, solution = _solve(bench, contender, budget)
    counts = dict(vars(passes))
    rows = vars(kkt_residual(bench.problem, solution.v)).values()
    return (
        _feasible(bench, solution)
        | counts
        | {
            "finite": float(solution.finite.float().mean()),
            "residuals": dict(zip(RESIDUALS, solution.residuals.median(dim=0).values.tolist(), strict=True)),
            "kkt": float(torch.linalg.vector_norm(torch.stack(list(rows)), dim=0).median()),
        }
    )


def _feasible(bench: Bench, solution: InnerSolution) -> dict[str, Any]:
    """The fields of a point; an x that is not finite has no cost, and some tasks refuse to look at it."""
    if bool(torch.isfinite(solution.v.x).all()):
        return vars(bench.point(math.nan, solution.v.x, solution.num_steps))
    return vars(Point(math.nan, math.nan, solution.num_steps, math.nan))


def _timed(judged: Mapping[str, Any], seconds: Sequence[float]) -> Measured:
    spread = {"seconds": statistics.median(seconds), "seconds_low": min(seconds), "seconds_high": max(seconds)}
    return Measured(**{**judged, **spread})
