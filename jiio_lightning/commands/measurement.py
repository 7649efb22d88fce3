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
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from jiio_lightning.commands.comparison import Point
from jiio_lightning.commands.contenders import STARTS, Contender, Start, with_budget
from jiio_lightning.commands.held_out import starts
from jiio_lightning.core.inner import RESIDUALS, InnerSolution
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.kkt import kkt_residual
from jiio_lightning.core.precision import full_precision
from jiio_lightning.core.solvers.observers import Observer, Snapshot
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.tasks.base import JIIOTask

LONG = 5.0
"""Seconds: so long a solve through all budgets averages over what else the machine does, and one round of it is enough."""


@contextmanager
def counted(net: nn.Module) -> Iterator[dict[str, int]]:
    """Counts the evaluations of a net's f, and the passes back through it, in all problems and starts that are made meanwhile."""
    f, passes = net.f, {"evaluations": 0, "backwards": 0}

    def back(cotangent: Tensor) -> None:
        passes["backwards"] += 1

    def watched(*args: Tensor) -> Tensor:
        passes["evaluations"] += 1
        image = f(*args)
        if image.requires_grad:
            image.register_hook(back)
        return image

    net.f = watched  # type: ignore[assignment]  # an attribute, which hides the method
    try:
        yield passes
    finally:
        del net.f


@dataclass(frozen=True)
class Solve:
    """A solve with one budget: the seconds that it took, its start included, what it returned and the passes that it made."""

    seconds: float
    solution: InnerSolution
    passes: dict[str, int]


class Budgets:
    """An observer that notes what a Nested solve would have returned with each of some smaller budgets, and when."""

    def __init__(self, contender: Contender, hidden: int, passes: dict[str, int]) -> None:
        self.budgets = contender.budgets
        self.better = contender.solver.selection.better  # type: ignore[attr-defined]
        self.hidden = hidden
        self.passes = passes
        self.best: Snapshot | None = None
        self.finite: Tensor | bool = True
        self.solves: list[Solve] = []
        self.began = time.perf_counter()

    def __call__(self, now: Snapshot) -> None:
        best = self.best = self.better(self.best, now)
        finite = self.finite = now.is_finite() & self.finite
        if now.step + 1 in self.budgets:
            _synchronise(now.cost)
            v = Augmented.unpack(best.value, self.hidden)
            solution = InnerSolution(v, best.residual, best.cost, now.step + 1, finite)
            self.solves.append(Solve(time.perf_counter() - self.began, solution, dict(self.passes)))


class Trial:
    """The inner problem of a batch with all that solvers are measured by; each solve sets the counts ``passes`` to 0."""

    def __init__(self, model: JIIOTask, batch: Any, passes: dict[str, int]) -> None:
        self.model = model
        self.batch = batch
        self.passes = passes
        self.problem = model.problem(batch)
        self.starts = starts(model, batch)

    def start(self, contender: Contender) -> Start:
        usual: Start = "learned" if self.model.injected.learned_start else "training"
        return contender.start or STARTS.get(contender.family, usual)

    def solves(self, contender: Contender) -> list[Solve]:
        """One for each budget; a single solve passes through all budgets of an anytime method."""
        if not contender.anytime:
            return [self.solve(contender, budget) for budget in contender.budgets]
        watch = Budgets(contender, self.starts["zero"]().hidden, self.passes)
        self.solve(contender, max(contender.budgets), [watch])
        return watch.solves

    def solve(self, contender: Contender, budget: int, observers: Sequence[Observer] = ()) -> Solve:
        solver, start = with_budget(contender.solver, budget), self.starts[self.start(contender)]
        self.passes.update(evaluations=0, backwards=0)
        began = time.perf_counter()
        solution = solver(self.problem, start(), observers)
        _synchronise(solution.cost)
        return Solve(time.perf_counter() - began, solution, dict(self.passes))

    @torch.no_grad()
    def judged(self, solve: Solve) -> dict[str, Any]:
        """All that a Point says of a solve but its time; an x that is not finite has no cost, and some tasks refuse it."""
        solution, v = solve.solution, solve.solution.v
        cost, residual, metrics = math.nan, math.nan, {}
        if bool(torch.isfinite(v.x).all()):
            with full_precision(v.x.device.type):
                z, gaps = self.model.injected.resolve(self.problem, v.x, v.hidden)
                cost, residual = float(self.problem.loss(z, v.x).mean()), float(gaps.max())
                metrics = {k: float(row.mean()) for k, row in self.model.evaluate(self.batch, self.problem, z, v.x).items()}
        rows = torch.stack(list(vars(kkt_residual(self.problem, v)).values()))
        return solve.passes | {
            "steps": solution.num_steps,
            "cost": cost,
            "metrics": metrics,
            "resolve_residual": residual,
            "residuals": dict(zip(RESIDUALS, solution.residuals.median(dim=0).values.tolist(), strict=True)),
            "kkt": float(torch.linalg.vector_norm(rows, dim=0).median()),
            "finite": float(solution.finite.float().mean()),
        }

    def peak_mib(self, contender: Contender) -> float:
        """Memory that a solve allocates, at most."""
        return peak_mib(partial(self.solve, contender, contender.typical), self.model.device)

    def residuals(self, contender: Contender) -> dict[str, list[float]]:
        """Median relative residuals of z, mu and x at each step of the largest budget; cached loss gradients are taken anew."""
        solver = with_budget(contender.solver, max(contender.budgets))
        if isinstance(solver, Joint):
            # a cached gradient would show the residual of an earlier step
            solver.sweeps = replace(solver.sweeps, loss_every=1)
        medians: list[Tensor] = []  # without the iterates: 100 of Table 9's are gigabytes
        start = self.starts[self.start(contender)]()
        solver(self.problem, start, [lambda now: medians.append(now.residual.median(dim=0).values)])
        return dict(zip(RESIDUALS, torch.stack(medians).T.tolist(), strict=True))


def measure(model: JIIOTask, batch: Any, contenders: Mapping[str, Contender], repeats: int) -> dict[str, list[Point]]:
    """The points of all contenders on a batch, in the order of their budgets.

    Each is solved once to judge and count it, which warms up too, then timed in rounds of them all; what is judged of an anytime
    method is its first round at the same time.
    """
    judged: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, list[list[float]]] = {}
    with torch.no_grad(), cached_weights(model):
        with counted(model.net) as passes:
            trial = Trial(model, batch, passes)
            for name, contender in tqdm(contenders.items(), desc="judge", unit="contender"):
                solves = trial.solves(contender)
                judged[name] = [trial.judged(solve) for solve in solves]
                seconds[name] = [[solve.seconds for solve in solves]] if contender.anytime else []
        # made anew without the counters, whose hooks would be in the times
        trial = Trial(model, batch, {})
        for turn, name in tqdm(list(product(range(repeats), contenders)), desc="time", unit="contender"):
            done = seconds[name]
            # one of an anytime method is done already
            if len(done) == turn and not (contenders[name].anytime and done[0][-1] > LONG):
                done.append([solve.seconds for solve in trial.solves(contenders[name])])
    return {name: list(map(_point, judged[name], zip(*seconds[name], strict=True))) for name in contenders}


def mean(points: Sequence[Point]) -> Point:
    """The same solve on several batches: all averaged, but the largest residual of the re-solved z."""
    values = {name: _mean([getattr(point, name) for point in points]) for name in vars(points[0])}
    return Point(**values | {"resolve_residual": max(point.resolve_residual for point in points)})


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):  # empty for a batch whose x is not finite: the longest has all names
        return {name: statistics.fmean(value.get(name, math.nan) for value in values) for name in max(values, key=len)}
    return round(statistics.fmean(values)) if isinstance(values[0], int) else statistics.fmean(values)


def _point(judged: Mapping[str, Any], seconds: Sequence[float]) -> Point:
    return Point(seconds=statistics.median(seconds), seconds_fastest=min(seconds), seconds_slowest=max(seconds), **judged)


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:  # kernels run on while the clock is read
        torch.cuda.synchronize(tensor.device)


def peak_mib(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """Peak of the memory that some work allocates above what was there, in MiB.

    On a GPU its allocator knows; on a CPU, the default, the profiler's record of allocations.
    """
    if device is not None and device.type == "cuda":
        return _peak_cuda(work, device) / 2**20
    return _peak_cpu(work) / 2**20


def _peak_cpu(work: Callable[[], Any]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    used = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            used += event.nbytes()
            peak = max(peak, used)
    return peak


def _peak_cuda(work: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
