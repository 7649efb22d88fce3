"""One joint step against the bare forward and backward pass that it contains, and the peak memory of a solve."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from jiio_lightning.commands.measurement import peak_mib
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import Method
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
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


def overhead(batch: PositiveInt = 16, steps: PositiveInt = 40, repeats: PositiveInt = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Measure Picard and Anderson with a memory of 20 against ``autograd.grad`` of (loss, f) with respect to (z, x).

    The bare passes use frozen weights and cached weight normalisation. Each repeat times the bare passes and each method one
    after the other; a joint step is a solve's time over its steps, its buffers' allocation included.

    Args:
        batch: samples.
        steps: of a solve; more than the memory, so that most of them use the full history.
        repeats: interleaved; the medians count.
        seed: of the weights.

    Returns:
        For each ``method``: its ``memory``; ``ratio``, seconds of a joint step over those of the bare passes; ``step_ms`` and
        ``bare_ms``, milliseconds of both; ``peak_mib``, the peak of memory allocated by a solve, on a CPU as the profiler
        counts it; ``peak_mib_twice``, the same for twice as many steps: equal, unless memory grows with the iterations.
    """
    torch.manual_seed(seed)
    net = ClassifierSizedNet().requires_grad_(False)
    label = torch.arange(batch) % 10
    problem = InnerProblem(net.f, lambda z, x: -F.cross_entropy(net.classify(z), label, reduction="none"))
    v0 = Augmented.start(torch.rand(batch, 784), net.cell.pyramid.numel)
    methods: dict[str, Method] = {"Picard": Picard(), "Anderson": Anderson(type=1, memory=20)}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}  # of a joint step and of the bare passes

    def solve(name: str, steps: int) -> None:
        Joint(method=methods[name], max_steps=steps)(problem, v0)

    with cached_weights(net):
        # a first solve outside the times, and a point at which mu is not 0
        warm = Joint(max_steps=5)(problem, v0).v
        for _ in range(repeats):
            for name in methods:
                bare = _seconds(lambda: _bare(problem, warm), 10)
                seconds[name].append((_seconds(partial(solve, name, steps), 1) / steps, bare))
        return [
            {
                "method": name,
                "memory": getattr(method, "memory", 0),
                "ratio": median(step / bare for step, bare in seconds[name]),
                "step_ms": 1e3 * median(step for step, _ in seconds[name]),
                "bare_ms": 1e3 * median(bare for _, bare in seconds[name]),
                "peak_mib": peak_mib(partial(solve, name, steps)),
                "peak_mib_twice": peak_mib(partial(solve, name, 2 * steps)),
            }
            for name, method in methods.items()
        ]


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
