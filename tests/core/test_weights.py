from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from jiio_lightning.core import Augmented, DualReuse, InnerProblem, InnerSolver, Joint, Nested
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from jiio_lightning.core.weights import cached_weights

SOLVE = FixedPoint(Picard(), 4)


class ConvDEQ(nn.Module):
    """z = tanh(conv(z) + x), its convolution with weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv2d(2, 2, 3, padding=1))
        self.computed = 0
        self.conv.parametrizations.weight[0].register_forward_hook(self._count)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.5 * self.conv(z.view(-1, 2, 4, 4)).flatten(1) + x)

    def _count(self, *_: object) -> None:
        self.computed += 1


def example() -> tuple[ConvDEQ, Tensor]:
    return ConvDEQ(), torch.randn(3, 32)


def gradients(net: ConvDEQ) -> list[Tensor]:
    taken = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    return taken


def test_a_solve_that_comes_first_does_not_spoil_the_gradient() -> None:
    net, x = example()
    net.f(x, x).square().sum().backward()
    expected = gradients(net)
    with cached_weights(net):
        with torch.no_grad():
            net.f(x, x)
        net.f(x, x).square().sum().backward()
    assert net.conv.parametrizations.weight.original0.grad is not None and net.computed == 2
    for ours, theirs in zip(gradients(net), expected, strict=True):
        assert torch.equal(ours, theirs) and bool(theirs.any())


@pytest.mark.parametrize("solver", [Joint(max_steps=4), Nested(Plain(0.1), SOLVE, SOLVE, 3)], ids=["joint", "nested"])
def test_one_block_around_a_training_step_gives_the_bits_of_a_block_each_for_solve_and_surrogate(solver: InnerSolver) -> None:
    net, target = example()
    problem = InnerProblem(net.f, lambda z, x: (z - target).square().sum(dim=1) + 0.1 * x.square().sum(dim=1))
    start, probes = Augmented.start(torch.zeros(3, 32), 32), torch.randn(1, 3, 32)

    def loss(v: Augmented) -> Tensor:
        surrogate = DualReuse(refine=SOLVE).surrogate(problem, problem.loss, v).value.mean()
        return surrogate + jacobian_penalty(net.f, v.z, v.x, probes)

    with parametrize.cached():
        v = solver(problem, start).v
    with parametrize.cached():
        value = loss(v)
    value.backward()
    expected = gradients(net)
    with cached_weights(net):
        value = loss(solver(problem, start).v)
    value.backward()
    for ours, theirs in zip(gradients(net), expected, strict=True):
        assert torch.equal(ours, theirs) and bool(theirs.any())


def test_a_block_within_a_block_computes_nothing_and_ends_nothing() -> None:
    net, x = example()
    with cached_weights(net):
        with torch.no_grad(), cached_weights(net):
            net.f(x, x)
        net.f(x, x).sum().backward()
        assert net.computed == 1
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.f(x, x)
    assert net.computed == 2, "the cache ends with the outer block"


def test_an_evaluation_caches_without_a_graph() -> None:
    net, x = example()
    with torch.no_grad(), cached_weights(net):
        Joint(max_steps=5)(InnerProblem(net.f, lambda z, x: z.square().sum(dim=1)), Augmented.start(x, 32))
        assert net.computed == 1 and not net.conv.weight.requires_grad


def test_a_block_ends_with_an_error_too() -> None:
    net, _ = example()
    with pytest.raises(ZeroDivisionError), cached_weights(net):
        raise ZeroDivisionError
    assert net.conv.weight is not net.conv.weight
