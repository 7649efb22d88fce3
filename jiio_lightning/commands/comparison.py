"""Joint against Nested on one batch: feasible cost against wall-clock time, in one run (Fig. 3, Tables 2, 3 and 7)."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from jiio_lightning.core.inner import RESIDUALS, InnerSolution, InnerSolver, SolveError
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.nested import Nested
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.observers import Trace
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.steps import Adam

AnySolver = TypeVar("AnySolver", bound=InnerSolver)
Resolve = Callable[[InnerProblem, Tensor, int], tuple[Tensor, Tensor]]
Evaluate = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Per-sample metrics ``(B,)`` by name, of z ``(B, n)`` and x ``(B, d)``."""


def no_metrics(z: Tensor, x: Tensor) -> dict[str, Tensor]:
    """None but the cost."""
    return {}


def paper_baseline(max_steps: int = 40) -> Nested:
    """Adam on x with cold solves of 18 steps for z and 20 for mu (Tables 3 and 9), its quasi-Newton replaced by Anderson."""
    return Nested(Adam(), FixedPoint(Anderson(memory=6), 18), FixedPoint(Anderson(memory=6), 20), max_steps)


@dataclass(frozen=True)
class Point:
    """One place on the plane of cost and time.

    Args:
        seconds: wall-clock time for the whole batch.
        cost: mean feasible cost a sample: z solved again at the returned x.
        steps: steps in x that it took.
        resolve_residual: largest relative residual of that last solve.
        metrics: means of the task's other metrics there, such as the accuracy that an attack has left.
    """

    seconds: float
    cost: float
    steps: int
    resolve_residual: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A method with one setting.

    Args:
        method: "joint" or "nested".
        setting: what was chosen for it, for a legend.
        solver: all of its settings.
        points: in the order of time.
    """

    method: str
    setting: str
    solver: str
    points: list[Point]

    @property
    def best(self) -> float:
        """The lowest feasible cost; infinite if none is finite."""
        return min((point.cost for point in self.points if math.isfinite(point.cost)), default=math.inf)

    def reaches(self, cost: float) -> Point | None:
        """The first point at or below a cost."""
        return next((point for point in self.points if point.cost <= cost), None)


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Args:
        joint: one point for each budget, each a solve of its own.
        nested: one curve for each step size that was tried.
        residuals: relative residuals of z, mu and x along the largest joint solve, medians over the batch.
        samples: in a batch.
        repeats: of each timed joint solve; its median counts.
        batches: over which costs and seconds are averaged.
        variants: further joint settings, measured like ``joint``; they have no part in the ratio.
        tolerance: share of the cost by which the target is easier than the lowest cost that both reach.
    """

    joint: Curve
    nested: list[Curve]
    residuals: dict[str, list[float]]
    samples: int
    repeats: int
    batches: int = 1
    variants: list[Curve] = field(default_factory=list)
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for curve in (self.joint, min(self.nested, key=lambda curve: curve.best)):
            if not math.isfinite(curve.best):
                raise SolveError(
                    f"no {curve.method} solve ended at a finite cost: check the checkpoint's weights and {curve.solver}"
                )

    @property
    def target(self) -> float:
        """The cost at which times are compared: the lowest that both methods reach, give or take the tolerance.

        Methods that end within a hair of one another creep there: without a tolerance the hair decides who has to run to his end.
        """
        lowest = max(self.joint.best, min(curve.best for curve in self.nested))
        return lowest + self.tolerance * abs(lowest)

    @property
    def tuned(self) -> Curve:
        """The nested curve that is first at the target."""
        return min(self.nested, key=lambda curve: _seconds(curve.reaches(self.target)))

    def nested_seconds(self, cost: float) -> float:
        """Time of the nested method to a cost, with whichever step size is fastest there; infinite if none reaches it."""
        return min(_seconds(curve.reaches(cost)) for curve in self.nested)

    @property
    def speedup(self) -> float:
        """Time of the nested method over that of the joint one, each to the target."""
        return self.reached["nested"].seconds / self.reached["joint"].seconds

    @property
    def reached(self) -> dict[str, Point]:
        """Where each method is first at the target, ``joint`` and ``nested``."""
        found = {"joint": self.joint.reaches(self.target), "nested": self.tuned.reaches(self.target)}
        return {name: point for name, point in found.items() if point is not None}  # both: the target is the weaker one's best

    @property
    def positive(self) -> bool:
        """Whether all costs are: a squared error is, minus a cross-entropy is not."""
        curves = [self.joint, *self.variants, *self.nested]
        return all(point.cost > 0 for curve in curves for point in curve.points if math.isfinite(point.cost))

    @property
    def resolve_residual(self) -> float:
        """The largest residual at which z was solved again: how far the feasible costs can be trusted."""
        return max(point.resolve_residual for curve in [self.joint, *self.nested] for point in curve.points)

    @property
    def gap(self) -> dict[str, float]:
        """How much larger the joint method's metrics are at the target, by name."""
        joint, nested = (self.reached[name].metrics for name in ("joint", "nested"))
        return {name: value - nested[name] for name, value in joint.items()}

    @property
    def outcome(self) -> dict[str, Any]:
        """Plain data: the target, where each method is first at it, the ratio of the times and the gap of the metrics there."""
        return {
            "tuned": self.tuned.setting,
            "target": self.target,
            "speedup": self.speedup,
            "reached": {name: _plain(point) for name, point in self.reached.items()},
            "gap": self.gap,
        }

    def record(self) -> dict[str, Any]:
        """Plain data for a JSON file.

        ``at`` has each budget of the joint method and the end of the tuned nested one, by name; ``against`` the outcome with one
        step size of the nested method alone, for each that ended at a finite cost.
        """
        end = self.tuned.points[-1]
        ends = {f"joint_{point.steps}": point for point in self.joint.points} | {f"nested_{end.steps}": end}
        at = {name: _plain(point) | {"ratio": end.seconds / point.seconds} for name, point in ends.items()}
        finite = [curve for curve in self.nested if math.isfinite(curve.best)]
        against = {curve.setting: replace(self, nested=[curve]).outcome for curve in finite}
        return asdict(self) | self.outcome | {"at": at, "against": against}


class Bench:
    """Runs solvers on one problem, with cached weight normalisation, and judges what they return at z solved again.

    Making the start counts in the time of a solve: a z that was solved beforehand is part of the joint method's price.

    Args:
        problem: the inner problem of a batch.
        start: makes what the joint method starts from.
        resolve: solves z at a given x, tightly.
        evaluate: metrics beside the cost.
        repeats: of each timed solve.
        plain: makes the start that training has; ``start`` unless given.
        learned: makes the learned start; ``start`` unless given.
    """

    def __init__(
        self,
        problem: InnerProblem,
        start: Callable[[], Augmented],
        resolve: Resolve,
        evaluate: Evaluate = no_metrics,
        repeats: int = 3,
        plain: Callable[[], Augmented] | None = None,
        learned: Callable[[], Augmented] | None = None,
    ) -> None:
        self.problem = problem
        self.start = start
        self.plain = start if plain is None else plain
        self.learned = start if learned is None else learned
        self.resolve = resolve
        self.evaluate = evaluate
        self.repeats = repeats
        with torch.no_grad():
            given = self.plain()
        self.x, self.hidden = given.x, given.hidden

    def cold(self) -> Augmented:
        """What the nested method starts from, the paper's baseline and the reference PGD: the plain start's x, z = mu = 0."""
        return Augmented.start(self.x, self.hidden)

    @torch.no_grad()
    def point(self, seconds: float, x: Tensor, steps: int) -> Point:
        """The feasible cost of x, and its metrics."""
        z, residual = self.resolve(self.problem, x, self.hidden)
        metrics = {name: float(value.mean()) for name, value in self.evaluate(z, x).items()}
        return Point(seconds, float(self.problem.loss(z, x).mean()), steps, float(residual.max()), metrics)

    def joint(self, solver: Joint, budgets: Sequence[int]) -> Curve:
        """One timed solve for each budget: the schedule of a step depends on it."""
        with parametrize.cached():
            points = [self._timed(with_budget(solver, budget)) for budget in sorted(budgets)]
        return Curve("joint", type(solver.method).__name__, describe(solver), points)

    def _timed(self, solver: InnerSolver) -> Point:
        seconds = []
        for _ in range(self.repeats):
            spent, solution = self.timed(solver, self.start)
            seconds.append(spent)
        return self.point(statistics.median(seconds), solution.v.x, solution.num_steps)

    def timed(self, solver: InnerSolver, start: Callable[[], Augmented]) -> tuple[float, InnerSolution]:
        """Seconds of one solve, the making of its start included, and what it returns."""
        began = time.perf_counter()
        solution = solver(self.problem, start())
        _synchronise(solution.cost)
        return time.perf_counter() - began, solution

    def nested(self, solver: Nested, size: float, every: int = 1) -> Curve:
        """The iterates of one solve with the given step size, each ``every``-th of them and the last."""
        solver = copy.copy(solver)
        solver.step = copy.copy(solver.step)
        solver.step.size = size  # type: ignore[attr-defined]
        with parametrize.cached():
            trace = Trace()
            solver(self.problem, self.cold(), [trace])
            points = [
                self.point(seconds, Augmented.unpack(now.value, self.hidden).x, now.step + 1)
                for seconds, now in zip(trace.seconds, trace.snapshots, strict=True)
                if (now.step + 1) % every == 0 or now.step + 1 == solver.max_steps
            ]
        return Curve("nested", f"{type(solver.step).__name__}({size:g})", describe(solver), points)

    def residuals(self, solver: Joint) -> dict[str, list[float]]:
        """Median relative residuals of z, mu and x at each step; a kept loss gradient is looked at in each."""
        trace = Trace()
        solver = copy.copy(solver)
        solver.sweeps = replace(solver.sweeps, loss_every=1)
        with parametrize.cached():
            solver(self.problem, self.start(), [trace])
        medians = torch.stack([now.residual.median(dim=0).values for now in trace.snapshots])
        return {name: medians[:, i].tolist() for i, name in enumerate(RESIDUALS)}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The same method on several batches: all averaged place by place, but the largest of the resolve residuals."""
    first = curves[0]
    points = [
        Point(
            statistics.fmean(point.seconds for point in places),
            statistics.fmean(point.cost for point in places),
            places[0].steps,
            max(point.resolve_residual for point in places),
            {name: statistics.fmean(point.metrics[name] for point in places) for name in places[0].metrics},
        )
        for places in zip(*(curve.points for curve in curves), strict=True)
    ]
    return Curve(first.method, first.setting, first.solver, points)


def with_budget(solver: AnySolver, max_steps: int) -> AnySolver:
    """The same solver with another budget."""
    solver = copy.copy(solver)
    solver.max_steps = max_steps
    return solver


def describe(settings: Any) -> str:
    """A solver with everything that it was made of, ``Joint(step=SelfScaled(size=1.0, ...), ...)``."""
    if not type(settings).__module__.startswith(__package__):
        return repr(settings)
    parts = ", ".join(f"{name}={describe(value)}" for name, value in vars(settings).items())
    return f"{type(settings).__name__}({parts})"


def _plain(point: Point) -> dict[str, float]:
    """A point with its metrics beside its cost."""
    return {"seconds": point.seconds, "cost": point.cost, "steps": point.steps} | point.metrics


def _seconds(point: Point | None) -> float:
    return math.inf if point is None else point.seconds


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
