"""DEQ beside TorchDEQ 0.1.0 (Geng & Kolter 2023): the same cells, batches, starts and tolerances, solver by solver."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from importlib import import_module
from itertools import product
from statistics import median
from types import ModuleType
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from experiments.benchmarks.scale import build
from jiio_lightning.commands.measurement import peak_mib
from jiio_lightning.core.deq import DEQ, State
from jiio_lightning.core.solvers import Anderson, Broyden, FixedPoint, Picard
from jiio_lightning.core.solvers.base import Method, relative
from jiio_lightning.core.weights import cached_weights

MAX_STEPS = 100
EXACT = FixedPoint(Anderson(memory=10, ridge=1e-10), 400, tol=1e-12)
OURS: dict[str, Method] = {"Picard": Picard(), "Anderson": Anderson(memory=6), "Broyden": Broyden()}
THEIRS = {"Picard": "fixed_point_iter", "Anderson": "anderson", "Broyden": "broyden"}
"""Their Anderson has a memory of 6, their Broyden one of all steps."""


class Dense(nn.Module):
    """tanh(W z + x), with a random W of spectral radius 0.9."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.inject = nn.Linear(16, width)
        self.weight = nn.Parameter(self.matrix(torch.randn(width, width)))

    @staticmethod
    def matrix(noise: Tensor) -> Tensor:
        return 0.9 * len(noise) ** -0.5 * noise

    def start(self, batch: int) -> State:
        return torch.zeros(batch, len(self.weight))

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight.T + x)


class Two(Dense):
    """A vector and small maps that drive each other, with a symmetric W of norm 0.95 over both: slow without acceleration."""

    maps = (8, 4, 4)

    @staticmethod
    def matrix(noise: Tensor) -> Tensor:
        return 0.95 * (noise + noise.T) / torch.linalg.matrix_norm(noise + noise.T, 2)

    def start(self, batch: int) -> State:
        return torch.zeros(batch, 128), torch.zeros(batch, *self.maps)

    def cell(self, z: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        vector, maps = z[0], z[1].flatten(1)
        (to_vector, to_maps), (x_vector, x_maps) = self.weight.split(128), x.split(128, dim=1)
        whole = torch.cat([vector, maps], dim=1)
        return torch.tanh(whole @ to_vector.T + x_vector), torch.tanh(whole @ to_maps.T + x_maps).unflatten(1, self.maps)


class Generator(nn.Module):
    """The cell of conf/model/mdeq_mnist.yaml at its initial weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("mdeq_mnist")
        self.inject, self.cell = self.net.inject, self.net.cell

    def start(self, batch: int) -> State:
        return torch.zeros(batch, self.net.hidden)


CASES: dict[str, tuple[Callable[[], Any], int]] = {
    "dense, n = 256": (Dense, 64),
    "two tensors, n = 128 + 128": (Two, 64),
    "MDEQ, MNIST generator, n = 4704": (Generator, 32),
}
"""Cell and batch."""


ASKED = ((1.0, True), (1.0, False), (0.7, False), (0.4, False))
"""Shares of the tolerance that we solve to, and whether samples are independent. Theirs go on together, and it returns f at the
last iterate, one step ahead of where it has measured."""


def torchdeq(
    cases: tuple[str, ...] = tuple(CASES), tols: tuple[float, ...] = (1e-3, 1e-5), repeats: PositiveInt = 9, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Time a forward and a backward pass to all weights, in rounds of one pass of each contender in a random order; float32.

    Both libraries stop at the relative residual ``tol``, forwards and backwards, after at most 100 steps.

    Args:
        cases: names of ``CASES``.
        tols: each is measured.
        repeats: rounds; the medians count.
        seed: of weights, inputs and cotangent.

    Returns:
        ``rows``, for each ``case``, ``tol``, ``library`` and ``solver``, ours also at smaller tolerances (``asked``) and with
        samples that do not stop one by one (``independent``): processor milliseconds ``forward_ms`` and ``backward_ms``,
        ``wall_ms`` of both; ``evaluations`` of the cell and ``products`` with its Jacobian, the last one to the weights included;
        ``residual``, the largest of ||f(z) - z|| / ||f(z)|| at the z that is returned, and ``gradient_error``,
        ||g - g*|| / ||g*|| over all weights, both in float64 and g* from solves to 1e-12; ``peak_mib`` that both passes allocate.
        And ``ratios``: the processor time of our fastest row over that of theirs, with the same tolerance and independent samples
        (``same_tol``), and of our fastest whose residual and gradient error are no larger, to 1 % (``as_accurate``).
    """
    library = _torchdeq()
    rows, ratios = [], []
    for name, tol in product(cases, tols):
        torch.manual_seed(seed)
        make, batch = CASES[name]
        case, draw = Case(make(), batch), random.Random(seed)
        contenders = [
            Contender(
                case,
                {"library": "ours", "solver": solver, "asked": share * tol, "independent": independent},
                _ours(FixedPoint(method, MAX_STEPS, share * tol, independent=independent)),
            )
            for (share, independent), (solver, method) in product(ASKED, OURS.items())
        ]
        contenders += [
            Contender(
                case, {"library": "TorchDEQ", "solver": solver, "asked": tol, "independent": False}, _theirs(library, word, tol)
            )
            for solver, word in THEIRS.items()
        ]
        judged = [contender.judged() for contender in contenders]  # which warms up, too
        for _ in range(repeats):
            for contender in draw.sample(contenders, len(contenders)):
                contender.timed()
        found = [contender.row() | reach for contender, reach in zip(contenders, judged, strict=True)]
        where = {"case": name, "tol": tol}
        rows += [where | row for row in found]
        ratios.append(where | _ratios(found, tol))
    return {"ratios": ratios, "rows": rows}


def _ratios(rows: list[dict[str, Any]], tol: float) -> dict[str, Any]:
    def total(row: dict[str, Any]) -> float:
        return row["forward_ms"] + row["backward_ms"]

    theirs = min((row for row in rows if row["library"] == "TorchDEQ"), key=total)
    ours = [row for row in rows if row["library"] == "ours"]
    same = [row for row in ours if row["asked"] == tol and row["independent"]]
    better = [row for row in ours if all(row[key] <= 1.01 * theirs[key] for key in ("residual", "gradient_error"))]
    answer: dict[str, Any] = {"theirs": theirs["solver"]}
    for key, some in (("same_tol", same), ("as_accurate", better)):
        best = min(some, key=total, default=None)
        answer |= {key: best and total(best) / total(theirs), f"{key}_solver": best and best["solver"]}
    return answer


Solve = Callable[[Callable[[State, Tensor], State], Tensor, State], State]
"""A cell, its input and z0 to z with its graph."""


def _ours(solver: FixedPoint) -> Solve:
    return lambda cell, x, z0: DEQ(cell, solver, solver)(x, z0=z0)[0]


def _theirs(library: ModuleType, solver: str, tol: float) -> Solve:
    options = {f"{way}_{key}": value for way in "fb" for key, value in {"solver": solver, "stop_mode": "rel", "tol": tol}.items()}
    deq = library.get_deq(ift=True, f_max_iter=MAX_STEPS, b_max_iter=MAX_STEPS, **options)

    def solve(cell: Callable[[State, Tensor], State], x: Tensor, z0: State) -> State:
        if isinstance(z0, Tensor):
            return deq(lambda z: cell(z, x), z0)[0][-1]
        return tuple(deq(lambda *z: cell(z, x), z0)[0][-1])

    return solve


class Case:
    """A net, its input and start, the cotangent of z, and the gradient that is to be found."""

    def __init__(self, net: Any, batch: int) -> None:
        self.net, self.x, self.z0 = net, torch.randn(batch, 16), net.start(batch)
        self.cotangent = torch.randn_like(packed(self.z0))
        self.double = copy.deepcopy(net).double()
        solve = lambda cell, x, z0: DEQ(cell, EXACT, EXACT)(x, z0=_double(z0))[0]  # noqa: E731
        self.exact = gradient(self.double, solve, self.x.double(), self.z0, self.cotangent.double())

    def residual(self, z: State) -> float:
        """The largest of a sample."""
        with torch.no_grad():
            z = _double(z)
            fz = packed(self.double.cell(z, self.double.inject(self.x.double())))
        return relative(fz - packed(z), fz).max().item()


class Contender:
    """A library's solver on a case."""

    def __init__(self, case: Case, names: dict[str, Any], solve: Solve) -> None:
        self.case, self.names, self.solve = case, names, solve
        self.seconds: list[tuple[float, float, float]] = []  # processor seconds forwards and backwards, wall seconds of both

    def timed(self) -> None:
        """Both passes; each computes the normalised weights once."""
        case = self.case
        case.net.zero_grad()
        with cached_weights(case.net):
            wall, began = time.perf_counter(), time.process_time()
            z = self.solve(case.net.cell, case.net.inject(case.x), case.z0)
            middle = time.process_time()
            (packed(z) * case.cotangent).sum().backward()
            ended = time.process_time()
        self.seconds.append((middle - began, ended - middle, time.perf_counter() - wall))

    def judged(self) -> dict[str, Any]:
        """What the two passes reach, what they evaluate and what they allocate."""
        case, passes = self.case, {"evaluations": 0, "products": 0}
        reached: list[State] = []

        def back(_: Tensor) -> None:
            passes["products"] += 1

        def watched(z: State, x: Tensor) -> State:
            passes["evaluations"] += 1
            image = case.net.cell(z, x)
            if packed(image).requires_grad:
                (image if isinstance(image, Tensor) else image[0]).register_hook(back)
            return image

        def keeping(_: Any, x: Tensor, z0: State) -> State:
            reached.append(self.solve(watched, x, z0))
            return reached[-1]

        found = gradient(case.net, keeping, case.x, case.z0, case.cotangent)
        error = torch.linalg.vector_norm(found - case.exact) / torch.linalg.vector_norm(case.exact)
        reach = {"residual": case.residual(reached[0]), "gradient_error": error.item()}
        case.net.zero_grad()
        peak = {"peak_mib": peak_mib(self.timed)}
        self.seconds.clear()
        return passes | reach | peak

    def row(self) -> dict[str, Any]:
        forward, backward, wall = (1e3 * median(times) for times in zip(*self.seconds, strict=True))
        return self.names | {"forward_ms": forward, "backward_ms": backward, "wall_ms": wall}


def gradient(net: Any, solve: Solve, x: Tensor, z0: State, cotangent: Tensor) -> Tensor:
    """Of <z, cotangent> with respect to all weights of a net, as one vector."""
    weights = list(net.parameters())
    with cached_weights(net):
        z = solve(net.cell, net.inject(x), z0)
        pulled = torch.autograd.grad(packed(z), weights, cotangent, materialize_grads=True, allow_unused=True)
    return parameters_to_vector(pulled)


def packed(z: State) -> Tensor:
    """``(B, N)``."""
    return z.flatten(1) if isinstance(z, Tensor) else torch.cat([part.flatten(1) for part in z], dim=1)


def _double(z: State) -> State:
    return z.double() if isinstance(z, Tensor) else tuple(part.double() for part in z)


def _torchdeq() -> ModuleType:
    try:
        return import_module("torchdeq")
    except ImportError as error:
        raise SystemExit(f"error: this benchmark needs TorchDEQ: pip install --no-deps torchdeq==0.1.0 ({error})") from error
