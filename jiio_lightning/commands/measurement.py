"""What solvers reach on a batch, in which time: feasible cost and KKT residual against seconds, evaluations of f and memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from jiio_lightning.commands.comparison import Point
from jiio_lightning.commands.contenders import STARTS, Contender, Start, with_budget
from jiio_lightning.commands.held_out import starts
from jiio_lightning.commands.memory import peak_mib
from jiio_lightning.core.inner import RESIDUALS, InnerSolution, InnerSolver
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.kkt import kkt_residual
from jiio_lightning.core.solvers.observers import Snapshot, Trace
from jiio_lightning.core.solvers.selection import Selection
from jiio_lightning.core.state import Augmented
from jiio_lightning.tasks.base import JIIOTask

LONG = 5.0
"""Seconds: so long a solve averages over what else the machine does, and one round of it is enough."""


@dataclass
class Passes:
    """Counts the evaluations of a cell, and the passes back through it."""

    evaluations: int = 0
    backwards: int = 0

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


@dataclass(frozen=True)
class Solve:
    """A solve with one budget: the seconds that it took, its start included, what it returned and the passes that it made."""

    seconds: float
    solution: InnerSolution
    passes: Passes


class Budgets:
    """An observer that notes what a solve of the largest budget would have returned with each of the smaller ones, and when."""

    def __init__(self, contender: Contender, hidden: int, began: float, passes: Passes) -> None:
        self.budgets = contender.budgets
        self.selection: Selection = contender.solver.selection  # type: ignore[attr-defined]  # of a Nested solver
        self.hidden = hidden
        self.began = began
        self.passes = passes
        self.best: Snapshot | None = None
        self.finite: Tensor | bool = True
        self.solves: list[Solve] = []

    def __call__(self, now: Snapshot) -> None:
        self.best = self.selection.better(self.best, now)
        self.finite = now.is_finite() & self.finite
        if now.step + 1 in self.budgets:
            _synchronise(now.cost)
            v = Augmented.unpack(self.best.value, self.hidden)
            solution = InnerSolution(v, self.best.residual, self.best.cost, now.step + 1, self.finite)
            self.solves.append(Solve(time.perf_counter() - self.began, solution, replace(self.passes)))


class Trial:
    """The inner problem of a batch with all that solvers are measured by.

    Args:
        model: the task.
        batch: of the test split.
        passes: counts what a solve does to f.
    """

    def __init__(self, model: JIIOTask, batch: Any, passes: Passes) -> None:
        self.model = model
        self.batch = batch
        self.passes = passes
        self.problem = model.problem(batch)
        self.starts = starts(model, batch)
        self.usual: Start = "learned" if model.injected.learned_start else "training"

    def start(self, contender: Contender) -> Start:
        """Where a contender starts."""
        return contender.start or STARTS.get(contender.family, self.usual)

    def solves(self, contender: Contender) -> list[Solve]:
        """One for each budget; a single solve passes through all budgets of an anytime method."""
        if not contender.anytime:
            return [self.solve(contender, budget) for budget in contender.budgets]
        solver, start, began = self._ready(contender, max(contender.budgets))
        v0 = start()
        watch = Budgets(contender, v0.hidden, began, self.passes)
        solver(self.problem, v0, [watch])
        return watch.solves

    def solve(self, contender: Contender, budget: int) -> Solve:
        """A solve with one budget."""
        solver, start, began = self._ready(contender, budget)
        solution = solver(self.problem, start())
        _synchronise(solution.cost)
        return Solve(time.perf_counter() - began, solution, replace(self.passes))

    def _ready(self, contender: Contender, budget: int) -> tuple[InnerSolver, Callable[[], Augmented], float]:
        self.passes.evaluations = self.passes.backwards = 0
        return with_budget(contender.solver, budget), self.starts[self.start(contender)], time.perf_counter()

    def judged(self, solve: Solve) -> dict[str, Any]:
        """All that a Point says of a solve but its time."""
        solution = solve.solution
        rows = vars(kkt_residual(self.problem, solution.v)).values()
        return self._feasible(solution.v) | {
            "steps": solution.num_steps,
            "residuals": dict(zip(RESIDUALS, solution.residuals.median(dim=0).values.tolist(), strict=True)),
            "kkt": float(torch.linalg.vector_norm(torch.stack(list(rows)), dim=0).median()),
            "finite": float(solution.finite.float().mean()),
            **vars(solve.passes),
        }

    @torch.no_grad()
    def _feasible(self, v: Augmented) -> dict[str, Any]:
        """The feasible cost and the task's metrics; an x that is not finite has none, and some tasks refuse it."""
        if not bool(torch.isfinite(v.x).all()):
            return {"cost": math.nan, "metrics": {}, "resolve_residual": math.nan}
        z, residual = self.model.injected.resolve(self.problem, v.x, v.hidden)
        metrics = {name: float(row.mean()) for name, row in self.model.evaluate(self.batch, self.problem, z, v.x).items()}
        return {"cost": float(self.problem.loss(z, v.x).mean()), "metrics": metrics, "resolve_residual": float(residual.max())}

    def peak_mib(self, contender: Contender) -> float:
        """Memory that a solve allocates, at most."""
        device = next(iter(self.model.parameters())).device
        return peak_mib(partial(self.solve, contender, contender.typical), device)

    def residuals(self, contender: Contender) -> dict[str, list[float]]:
        """Median relative residuals of z, mu and x at each step of the largest budget; cached loss gradients are taken anew."""
        solver = with_budget(contender.solver, max(contender.budgets))
        if isinstance(solver, Joint):
            solver.sweeps = replace(solver.sweeps, loss_every=1)
        trace = Trace()
        solver(self.problem, self.starts[self.start(contender)](), [trace])
        medians = torch.stack([now.residual.median(dim=0).values for now in trace.snapshots])
        return {name: medians[:, i].tolist() for i, name in enumerate(RESIDUALS)}


def measure(model: JIIOTask, batch: Any, contenders: Mapping[str, Contender], repeats: int) -> dict[str, list[Point]]:
    """The points of all contenders on a batch, in the order of their budgets.

    Each is solved once to judge and count it, which warms up too, then timed in rounds of them all; what is judged of an anytime
    method is its first round at the same time.
    """
    judged: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, list[list[float]]] = {}
    with parametrize.cached():
        with counted(model.net) as passes:
            trial = Trial(model, batch, passes)
            for name, contender in tqdm(contenders.items(), desc="judge", unit="contender"):
                solves = trial.solves(contender)
                judged[name] = [trial.judged(solve) for solve in solves]
                seconds[name] = [_seconds(solves)] if contender.anytime else []
        trial = Trial(model, batch, Passes())
        for turn, name in tqdm(list(product(range(repeats), contenders)), desc="time", unit="contender"):
            done = seconds[name]
            if len(done) == turn and not (done and done[-1][-1] > LONG):
                done.append(_seconds(trial.solves(contenders[name])))
    return {
        name: [_point(said, times) for said, times in zip(judged[name], zip(*seconds[name], strict=True), strict=True)]
        for name in contenders
    }


def mean(points: Sequence[Point]) -> Point:
    """The same solve on several batches: all averaged, but the largest residual of the re-solved z."""
    values = {name: _mean([getattr(point, name) for point in points]) for name in vars(points[0])}
    return Point(**values | {"resolve_residual": max(point.resolve_residual for point in points)})


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: statistics.fmean(value.get(name, math.nan) for value in values) for name in max(values, key=len)}
    return round(statistics.fmean(values)) if isinstance(values[0], int) else statistics.fmean(values)


def _point(judged: Mapping[str, Any], seconds: Sequence[float]) -> Point:
    return Point(seconds=statistics.median(seconds), seconds_low=min(seconds), seconds_high=max(seconds), **judged)


def _seconds(solves: Sequence[Solve]) -> list[float]:
    return [solve.seconds for solve in solves]


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
