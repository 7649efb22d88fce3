"""How near f, its backward pass and a joint step come to what convolutions alone cost, and where the rest goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.benchmarks.scale import NETS, Count, build, problem_of
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights

STEPS = 4
"""Of a solve: what a joint step costs is its time over them."""
KINDS = {"f": 1, "f and backward": 1, "joint step": STEPS}


class Clock(TorchDispatchMode):
    """Processor seconds of this thread in each operator, by name; what Python and autograd take between them does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.thread_time()
        answer = operator(*args, **(kwargs or {}))
        self.seconds[operator.name().removeprefix("aten::").partition(".")[0]] += time.thread_time() - began
        return answer


def roofline(
    net: str = "MNIST classifier",
    batches: tuple[PositiveInt, ...] = (1, 4, 16, 32, 64, 96),
    repeats: PositiveInt = 5,
) -> list[dict[str, Any]]:
    """Time one net's f, f with its backward pass, and a joint step (Joint, Picard), in processor seconds of one thread.

    Args:
        net: one of ``scale.NETS``.
        batches: sizes of the batch.
        repeats: interleaved; the medians count.

    Returns:
        For each batch and ``what``: ``ms`` of processor time; ``convolutions``, the share of it within convolutions; ``gflops``,
        the speed of the whole; ``operators``, the shares of the six that take most. First the machine's limit: ``gflops`` of a
        product of two matrices of 1,024 by 1,024 float32 numbers.
    """
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    limit = median(_seconds(lambda: a @ a) for _ in range(10 * repeats))
    made = build(NETS[net][0]).requires_grad_(False)
    return [{"what": "matrix product", "gflops": 2 * 1024**3 / limit / 1e9}] + [
        row for batch in batches for row in _rows(made, batch, repeats)
    ]


def _rows(net: torch.nn.Module, batch: int, repeats: int) -> list[dict[str, Any]]:
    problem, v = problem_of(net, batch)
    with cached_weights(net):
        v = Joint(max_steps=2)(problem, Augmented(v.z, v.mu, torch.randn_like(v.x))).v  # a mu that is not 0
        work: dict[str, Callable[[], Any]] = {
            "f": lambda: problem.f(v.z, v.x),
            "f and backward": lambda: _pull(problem.f, v),
            "joint step": lambda: Joint(max_steps=STEPS)(problem, v),
        }
        seconds: dict[str, list[float]] = {what: [] for what in work}
        clocks = {what: Clock() for what in work}
        for _ in range(repeats):
            for what, call in work.items():
                seconds[what].append(_seconds(call))
                with clocks[what]:
                    call()
        return [
            _row(what, batch, KINDS[what], median(seconds[what]), clocks[what].seconds, repeats, Count.of(call).flops)
            for what, call in work.items()
        ]


def _row(what: str, batch: int, steps: int, seconds: float, parts: Counter[str], repeats: int, operations: int) -> dict[str, Any]:
    shares = {name: part / repeats / seconds for name, part in parts.most_common() if name != "detach"}  # the clock's own
    return {
        "what": what,
        "batch": batch,
        "ms": 1e3 * seconds / steps,
        "convolutions": sum(share for name, share in shares.items() if "convolution" in name),
        "gflops": operations / seconds / 1e9,
        "operators": dict(list(shares.items())[:6]),
    }


def _pull(f: Callable[..., Any], v: Augmented) -> None:
    with torch.enable_grad():
        z, x = v.z.detach().requires_grad_(), v.x.detach().requires_grad_()
        torch.autograd.grad(f(z, x), (z, x), v.mu)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
