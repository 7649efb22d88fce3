"""How much memory a training step of the nets of Table 9 has at its peak, counted on tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.benchmarks.scale import NETS, build, problem_of
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.weights import cached_weights

TABLE_9 = tuple(name for name in NETS if "reduced" not in name)
SOLVERS = {
    "picard": Joint(max_steps=2),
    "anderson": Joint(method=Anderson(type=1, memory=20), max_steps=2),
    "anderson_bfloat16": Joint(method=Anderson(type=1, memory=20, history_dtype="bfloat16"), max_steps=2),
}
"""Two steps show it: buffers have their size from the start, and memory does not grow with the steps."""


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made under it have at any time, in Python or in a graph, an operator's own scratch left out.

    Example:
        >>> with PeakBytes() as count:
        ...     _ = torch.zeros(100)
        ...     _ = torch.zeros(200)  # made before the first one goes
        >>> count.peak
        1200
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = operator(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: item for key, item in self.alive.items() if not item[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return answer

    @classmethod
    def of(cls, work: Callable[[], Any]) -> float:
        """The peak of a call, in MiB."""
        with cls() as count:
            work()
        return count.peak / 2**20


def memory(nets: tuple[str, ...] = TABLE_9) -> list[dict[str, Any]]:
    """Count the peaks of a joint solve, and of what trains the weights after it, in float32, above what is there before.

    Args:
        nets: names of ``scale.NETS``; those of Table 9 and that for FFHQ unless given.

    Returns:
        For each ``net``, in MiB: ``weights`` with gradients and Adam's two moments; the solves ``picard``, ``anderson`` (type I,
        memory 20) and ``anderson_bfloat16``, whose history is short; ``lagrangian``, the gradient of Eq. 19, and ``penalty``,
        that together with Eq. 27's, with two probes. And its ``batch``.
    """
    with FakeTensorMode():
        return [_row(name, *NETS[name]) for name in nets]


def _row(name: str, fragment: str, batch: int) -> dict[str, Any]:
    net = build(fragment)
    weights = list(net.parameters())

    def train(penalty: bool) -> None:
        with cached_weights(net):
            problem, v = problem_of(net, batch)
            value = problem.lagrangian(v).mean()
            if penalty:
                value = value + jacobian_penalty(problem.f, v.z, v.x, torch.zeros(2, *v.z.shape))
            torch.autograd.grad(value, weights, allow_unused=True)

    with torch.no_grad(), cached_weights(net):
        problem, v = problem_of(net, batch)
        solves = {kind: PeakBytes.of(lambda solver=solver: solver(problem, v)) for kind, solver in SOLVERS.items()}
    trained = {"lagrangian": PeakBytes.of(lambda: train(False)), "penalty": PeakBytes.of(lambda: train(True))}
    size = {"net": name, "batch": batch, "weights": 4 * sum(weight.nbytes for weight in weights) / 2**20}
    return size | solves | trained
