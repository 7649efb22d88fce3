"""One joint step beside the bare forward and backward pass that it contains, and the peak memory of a solve."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jiio_lightning.commands.memory import peak_mib
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import Method
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.state import Augmented
from jiio_lightning.models.blocks import conv3x3
from jiio_lightning.models.mdeq import MDEQCell


class ClassifierSizedNet(nn.Module):
    """A cell of the size of Table 9's MNIST classifier: 2 scales of 24 channels at 28x28 and 14x14, expansion 5."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = MDEQCell((24, 24), (28, 28), expansion=5, groups=8)
        self.inject = conv3x3(1, 24)
        self.classify = nn.Linear(self.cell.pyramid.numel, 10)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """The cell driven by pixels ``(B, 784)`` at its finest scale."""
        fine = self.inject(x.unflatten(1, (1, 28, 28)))
        coarse = fine.new_zeros(len(fine), *self.cell.pyramid.shapes[1])
        return self.cell(z, self.cell.pyramid.pack([fine, coarse]))


@dataclass(frozen=True)
class Overhead:
    """Medians over interleaved repeats.

    Args:
        method: of the joint iteration.
        memory: its history.
        ratio: seconds of a joint step over those of the bare passes.
        step_ms: milliseconds of a joint step.
        bare_ms: milliseconds of the bare passes.
        peak_mib: peak of memory allocated by a solve of ``steps`` steps, on a CPU as the profiler counts it.
        peak_mib_twice: the same for twice as many steps: equal, unless memory grows with the iterations.
    """

    method: str
    memory: int
    ratio: float
    step_ms: float
    bare_ms: float
    peak_mib: float
    peak_mib_twice: float


def overhead(batch: int = 16, steps: int = 40, repeats: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Measure Picard and Anderson with a memory of 20 against ``autograd.grad`` of (loss, f) with respect to (z, x).

    The bare passes use frozen weights and cached weight normalisation. Each repeat times the bare passes and each method one
    after the other; a joint step is a solve's time over its steps, its buffers' allocation included.

    Args:
        batch: samples.
        steps: of a solve; more than the memory, so that most of them use the full history.
        repeats: interleaved; the median ratio counts.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    net = ClassifierSizedNet().requires_grad_(False)
    label = torch.arange(batch) % 10
    problem = InnerProblem(net.f, lambda z, x: -F.cross_entropy(net.classify(z), label, reduction="none"))
    v0 = Augmented.start(torch.rand(batch, 784), net.cell.pyramid.numel)
    methods: dict[str, Method] = {"Picard": Picard(), "Anderson": Anderson(type=1, memory=20)}
    with parametrize.cached():
        warm = Joint(max_steps=5)(problem, v0).v
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        for _ in range(repeats):
            for name, method in methods.items():
                bare = _seconds(lambda: _bare(problem, warm), 10)
                solve = _seconds(lambda method=method: Joint(method=method, max_steps=steps)(problem, v0), 1)  # type: ignore[misc]
                pairs[name].append((solve / steps, bare))
        return [vars(_summary(problem, v0, name, methods[name], steps, pairs[name])) for name in methods]


def _summary(
    problem: InnerProblem, v0: Augmented, name: str, method: Method, steps: int, pairs: list[tuple[float, float]]
) -> Overhead:
    solves, bares = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(solve / bare for solve, bare in pairs)
    peaks = [peak_mib(lambda n=n: Joint(method=method, max_steps=n)(problem, v0)) for n in (steps, 2 * steps)]  # type: ignore[misc]
    return Overhead(name, getattr(method, "memory", 0), ratio, solves * 1e3, bares * 1e3, *peaks)


def _bare(problem: InnerProblem, v: Augmented) -> None:
    """One evaluation of f and of the loss and one backward pass to z and x, nothing else."""
    z, x = v.z.detach().requires_grad_(), v.x.detach().requires_grad_()
    image, loss = problem.f(z, x), problem.loss(z, x)
    torch.autograd.grad((loss, image), (z, x), (torch.ones_like(loss), v.mu))


def _seconds(work: Callable[[], Any], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times
