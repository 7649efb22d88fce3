"""What a joint step costs on paper: floating-point operations, bytes and memory, counted on tensors without data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from experiments.record import LABORATORY
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.models import FiLMClassifier, LatentGenerator

NETS = {
    "MNIST generator, reduced": ("mdeq_mnist", 32),
    "MNIST classifier, reduced": ("classifier_mnist14", 64),
    "MNIST classifier": ("classifier_mnist", 48),
    "CIFAR-10 classifier": ("classifier_cifar10", 32),
    "CelebA64 generator": ("mdeq_celeba64", 12),
    "Omniglot classifier": ("conditioned_omniglot", 20),
    "FFHQ 256x256 generator": ("mdeq_ffhq256", 12),
}
"""Fragments of conf/model, and the batch of one device: that of Table 9 over the GPUs of C.5."""


def build(fragment: str) -> nn.Module:
    """The net of a fragment of conf/model."""
    settings = yaml.safe_load((LABORATORY.parent / f"conf/model/{fragment}.yaml").read_text())
    module, _, name = settings["class_path"].rpartition(".")
    return getattr(import_module(module), name)(**settings["init_args"])


def problem_of(net: nn.Module, batch: int) -> tuple[InnerProblem, Augmented]:
    """An inner problem of the net's own f and h with a loss that costs nothing, and an iterate."""
    images = torch.zeros(batch, *net.image_shape)
    if isinstance(net, FiLMClassifier):
        injection = net.inject(images).detach()  # once a solve: it does not depend on x
        f, h, x = lambda z, x: net.f(z, x, injection), net.h, torch.zeros(batch, net.task)
    else:
        x = torch.zeros(batch, net.latent) if isinstance(net, LatentGenerator) else images.flatten(1)
        f, h = net.f, lambda z, x: net.h(z)
    return InnerProblem(f, lambda z, x: h(z, x).flatten(1).square().sum(1)), Augmented.start(x, net.hidden)


class Count(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and matrix products, two for each multiplication and addition, and
    the bytes that all operators read and write. torch's own FlopCounterMode, whose counts these are, refuses ``autograd.grad``.

    Example:
        >>> with Count() as count:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
        >>> count.flops, count.bytes  # written once, read once
        (60, 208)
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = operator(*args, **kwargs)
        if operator.overloadpacket in flop_registry:
            self.flops += flop_registry[operator.overloadpacket](*args, **kwargs, out_val=answer)
        if not (operator.is_view or operator.name().startswith(("aten::detach", "aten::empty"))):
            leaves = tree_leaves((args, kwargs, answer))
            self.bytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return answer

    @classmethod
    def of(cls, work: Callable[[], Any]) -> Count:
        """The count of a call."""
        with cls() as count:
            work()
        return count


@contextmanager
def graph_bytes() -> Iterator[dict[int, int]]:
    """The sizes of all that graphs which are made meanwhile keep for their backward passes, by where it lies."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def scale(nets: tuple[str, ...] = tuple(NETS)) -> list[dict[str, Any]]:
    """Count a joint step of the nets of Table 9, of a 256x256 FFHQ net and of the two reduced ones, per sample.

    Args:
        nets: names of ``NETS``; all unless given.

    Returns:
        For each ``net``: its ``batch``, ``weights`` and width ``hidden`` of z; GFLOP of ``f``, of ``h``, of a joint ``step``
        (both and their way back to z and x), of the ``outer`` gradient (the way back to the weights) and of Eq. 27's
        ``penalty`` with two probes; ``step_mb``, megabytes that the operators of a joint step read and write; ``graph_mb``,
        those that its graph keeps; ``state_mb``, those of (z, mu, x): Anderson keeps twice that for each step of its memory.
    """
    with FakeTensorMode():
        return [_row(name, *NETS[name]) for name in nets]


def _row(name: str, fragment: str, batch: int) -> dict[str, Any]:
    net = build(fragment)
    weights = list(net.parameters())
    with cached_weights(net):
        problem, v = problem_of(net, batch)

        def penalty() -> None:
            probes = torch.zeros(2, *v.z.shape)
            torch.autograd.grad(jacobian_penalty(problem.f, v.z, v.x, probes), weights, allow_unused=True, retain_graph=True)

        works: dict[str, Callable[[], Any]] = {
            "f": lambda: problem.f(v.z, v.x),
            "h": lambda: problem.loss(v.z, v.x),
            "step": lambda: problem.evaluate(v),
            "outer": lambda: torch.autograd.grad(problem.lagrangian(v).sum(), weights, allow_unused=True, retain_graph=True),
            "penalty": penalty,
        }
        found = {what: Count.of(work) for what, work in works.items()}
        with graph_bytes() as kept:
            z, x = v.z.requires_grad_(), v.x.requires_grad_()
            graph = problem.f(z, x), problem.loss(z, x)  # noqa: F841  # alive until it is counted
    megabytes = {"step_mb": found["step"].bytes, "graph_mb": sum(kept.values()), "state_mb": v.pack().nbytes}
    size = {"net": name, "batch": batch, "weights": sum(weight.numel() for weight in weights), "hidden": v.hidden}
    gigaflops = {what: count.flops / batch / 1e9 for what, count in found.items()}
    return size | gigaflops | {what: value / batch / 1e6 for what, value in megabytes.items()}
