"""How much memory the nets of Table 9 need, counted on tensors without values: no device of that size is needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.record import LABORATORY
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights

NETS = {"mdeq_celeba64": 12, "mdeq_ffhq256": 12, "classifier_mnist": 48, "classifier_cifar10": 32}
"""Fragments of conf/model, and the samples that each GPU has in the paper (C.5)."""
SOLVERS = {
    "Picard": Joint(max_steps=2),
    "Anderson(20)": Joint(method=Anderson(type=1, memory=20), max_steps=2),
    "Anderson(20), bfloat16 history": Joint(method=Anderson(type=1, memory=20, history_dtype="bfloat16"), max_steps=2),
}
"""Two steps are enough: buffers have their size from the start, and memory does not grow with the steps."""


class PeakBytes(TorchDispatchMode):
    """The most bytes that the tensors made under it have at any time, in Python or in a graph; an operation's own scratch is not
    seen."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def memory(batch: int | None = None) -> list[dict[str, Any]]:
    """Count, in float32, the peak of a joint solve, and of the two backward passes of a training step after it.

    Args:
        batch: samples; unless given those that each GPU has in the paper.

    Returns:
        For each ``net``: its ``batch``; ``weights_mib`` with gradients and Adam's two moments; ``solve_mib`` of each solver;
        ``lagrangian_mib``, the pass that trains the weights (Eq. 19); ``penalty_mib``, both with Eq. 27 and its two probes.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        return [_counted(name, batch or usual) for name, usual in NETS.items()]


def _counted(name: str, batch: int) -> dict[str, Any]:
    net = _net(name)
    v0 = Augmented.start(torch.zeros(batch, getattr(net, "latent", None) or _pixels(net)), net.hidden)
    weights = 4 * sum(weight.numel() * weight.element_size() for weight in net.parameters())
    found: dict[str, Any] = {"net": name, "batch": batch, "weights_mib": weights / 2**20}
    problem = InnerProblem(net.f, _loss(net, batch))

    def train(penalty: float) -> None:
        with cached_weights(net):
            value = problem.lagrangian(v0).mean()
            if penalty:
                value = value + penalty * jacobian_penalty(problem.f, v0.z, v0.x, torch.zeros(2, *v0.z.shape))
            torch.autograd.grad(value, list(net.parameters()), allow_unused=True)

    with torch.no_grad(), cached_weights(net):
        found["solve_mib"] = {of: _peak(lambda solver=solver: solver(problem, v0)) for of, solver in SOLVERS.items()}
    return found | {"lagrangian_mib": _peak(lambda: train(0.0)), "penalty_mib": _peak(lambda: train(0.1))}


def _net(name: str) -> Any:
    """The net of a fragment, its tensors without values."""
    said = yaml.safe_load((LABORATORY.parent / f"conf/model/{name}.yaml").read_text())
    module, _, kind = said["class_path"].rpartition(".")
    return getattr(import_module(module), kind)(**said["init_args"])


def _pixels(net: Any) -> int:
    return torch.Size(net.image_shape).numel()


def _loss(net: Any, batch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Of a generator or a classifier."""
    if hasattr(net, "latent"):
        image = torch.zeros(batch, *net.image_shape)
        return lambda z, x: (net.h(z) - image).square().flatten(1).sum(dim=1)
    label = torch.zeros(batch, dtype=torch.long)
    return lambda z, x: -F.cross_entropy(net.h(z), label, reduction="none")


def _peak(work: Callable[[], Any]) -> float:
    """In MiB, above what is there."""
    with PeakBytes() as count:
        work()
    return count.peak / 2**20
