"""The result of ``jiio compare``: what each contender reached, who is on the Pareto front, and how much faster the default is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from jiio_lightning.commands.contenders import BASELINES, DEFAULT, Family, Start
from jiio_lightning.core.inner import SolveError

FEASIBLE = 1e-2
"""Relative residual above which the re-solved z is no equilibrium, and the cost there no feasible one."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A solve with one budget."""

    steps: int  # in x
    seconds: float  # wall-clock time for the whole batch, the start included; the median over the rounds
    seconds_fastest: float  # of the fastest round
    seconds_slowest: float
    cost: float  # mean feasible cost of a sample: the inner loss at z re-solved at the returned x
    metrics: dict[str, float]  # means of the task's metrics there, such as the accuracy that an attack leaves
    resolve_residual: float  # largest relative residual of the re-solved z
    residuals: dict[str, float]  # relative, of z (the violation of the constraint), mu and x at the returned iterate; medians
    kkt: float  # norm of all rows of Eq. 14 there, the median
    finite: float  # share of samples that never met a value that is not finite
    evaluations: int  # of f, those of the start included
    backwards: int  # passes back through f

    @property
    def sound(self) -> bool:
        """Whether it can be compared: the cost is finite and the re-solved z an equilibrium."""
        return math.isfinite(self.cost) and self.resolve_residual < FEASIBLE

    def record(self) -> dict[str, Any]:
        """Plain data, the task's metrics on one level with the cost."""
        fields = asdict(self)
        return fields | fields.pop("metrics")


@dataclass(frozen=True)
class Curve:
    """What was measured of a contender: its points by budget, and the memory that one solve allocates at most."""

    name: str
    family: Family
    start: Start
    solver: str
    points: dict[int, Point]
    peak_mib: float

    @property
    def sound(self) -> list[Point]:
        """The points that can be compared, in the order of time: of two budgets the larger one may have been the faster."""
        return sorted((point for point in self.points.values() if point.sound), key=lambda point: point.seconds)

    @property
    def best(self) -> float:
        """The lowest feasible cost."""
        return min(point.cost for point in self.sound)

    def reaches(self, cost: float) -> Point | None:
        """The first point at or below a cost."""
        return next((point for point in self.sound if point.cost <= cost), None)

    def record(self) -> dict[str, Any]:
        settings = {name: value for name, value in vars(self).items() if name != "points"}
        return settings | {"at": {str(budget): point.record() for budget, point in self.points.items()}}


@dataclass(frozen=True)
class Outcome:
    """The default and the baseline that is the fastest at the target, each where it is first at it."""

    target: float  # the lowest cost that both reach, give or take the tolerance
    tuned: str  # name of the baseline
    reached: dict[str, Point]  # of the ``default`` and of the ``baseline``

    @property
    def speedup(self) -> float:
        """Time of the baseline over that of the default."""
        return self.reached["baseline"].seconds / self.reached["default"].seconds

    @property
    def gap(self) -> dict[str, float]:
        """How much larger the default's metrics are, by name."""
        return {name: value - self.reached["baseline"].metrics[name] for name, value in self.reached["default"].metrics.items()}

    def record(self) -> dict[str, Any]:
        """Plain data; ``violation`` is the relative residual of the z that the default returns."""
        return {
            "target": self.target,
            "tuned": self.tuned,
            "speedup": self.speedup,
            "violation": self.reached["default"].residuals["z"],
            "gap": self.gap,
            "reached": {side: point.record() for side, point in self.reached.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """All contenders on the same batches.

    Raises:
        SolveError: if no solve of the default ended at a feasible cost, or none of the baselines that there are.
    """

    curves: list[Curve]  # one for each contender; one of them is the default
    residuals: dict[str, list[float]]  # relative, of z, mu and x along the default's largest solve; medians of the first batch
    samples: int  # in a batch
    batches: int  # over which costs and seconds are averaged
    repeats: int  # rounds
    tolerance: float = 0.0  # share of the cost by which the target is easier than the lowest cost that both sides reach
    pixels: float = 1.0  # of an image, where costs are sums over them; else 1
    reference: float | None = None  # a baseline per pixel (PCA with as many numbers), if there is one

    def __post_init__(self) -> None:
        for side in ([self.default], self.baselines(*BASELINES)):
            if side and not any(curve.sound for curve in side):
                raise SolveError(
                    f"no solve of {side[0].name} ended at a finite, feasible cost: check the checkpoint's weights, the budgets "
                    f"and {side[0].solver}"
                )

    @property
    def default(self) -> Curve:
        """The run file's own solver."""
        return next(curve for curve in self.curves if curve.name == DEFAULT)

    def baselines(self, *which: str) -> list[Curve]:
        """The Nested contenders of some families or names."""
        return [curve for curve in self.curves if curve.family in BASELINES and {curve.family, curve.name} & set(which)]

    @property
    def pareto(self) -> list[tuple[Curve, Point]]:
        """The points that no other one beats in both cost and time, in the order of time."""
        owner = {id(point): curve for curve in self.curves for point in curve.sound}  # by id: a point holds dicts and has no hash
        return [(owner[id(point)], point) for point in front([point for curve in self.curves for point in curve.sound])]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Against the baselines of each family, and against each baseline alone, where there is a sound one."""
        names = [*BASELINES, *(curve.name for curve in self.baselines(*BASELINES))]
        sides = {which: [curve for curve in self.baselines(which) if curve.sound] for which in names}
        return {which: self._outcome(side) for which, side in sides.items() if side}

    def _outcome(self, baselines: list[Curve]) -> Outcome:
        target = max(self.default.best, min(curve.best for curve in baselines))
        # methods that end within a hair of one another creep there: without a tolerance the hair decides which one has to run to
        # its end
        target += self.tolerance * abs(target)
        default, reached = first([self.default], target), first(baselines, target)
        assert default is not None and reached is not None  # the target is the weaker side's best
        return Outcome(target, reached[1].name, {"default": default[0], "baseline": reached[0]})

    @property
    def memory(self) -> float | None:
        """The default's peak memory over the least of the paper's Nested solvers; None without one."""
        peaks = [curve.peak_mib for curve in self.baselines("paper")]
        return self.default.peak_mib / min(peaks) if peaks else None

    def record(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        settings = {name: value for name, value in vars(self).items() if name != "curves"}
        return settings | {
            "memory": self.memory,
            "against": {which: outcome.record() for which, outcome in self.outcomes.items()},
            "pareto": [{"contender": curve.name, **point.record()} for curve, point in self.pareto],
            "contenders": {curve.name: curve.record() for curve in self.curves},
        }


def front(points: list[Point]) -> list[Point]:
    """The points that no other one beats in both cost and time, in the order of time."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.seconds, point.cost)):
        if not found or point.cost < found[-1].cost:
            found.append(point)
    return found


def first(curves: list[Curve], cost: float) -> tuple[Point, Curve] | None:
    """Where the fastest of some contenders is first at or below a cost, and which one it is; None if none reaches it."""
    places = [(point, curve) for curve in curves if (point := curve.reaches(cost)) is not None]
    return min(places, key=lambda place: place[0].seconds, default=None)
