from __future__ import annotations

import pytest
import torch
from torch import nn

from jiio_lightning.models import IMFN, ISIREN
from jiio_lightning.models.coordinate_nets import FilterNet
from jiio_lightning.models.lipschitz import SpectralBound, bounded, tighten
from jiio_lightning.tasks.optimiser import adam


def norm(linear: nn.Linear) -> float:
    return float(torch.linalg.svdvals(linear.weight.detach())[0])


def test_a_weight_within_the_bound_stays_as_it_is():
    linear = nn.Linear(5, 5)
    before = linear.weight.detach().clone()
    bounded(linear, bound=10.0)
    assert linear.weight.equal(before)
    assert bounded(nn.Linear(5, 5), None).weight.requires_grad


def test_a_weight_beyond_it_is_divided_and_its_gradient_is_that_of_the_division():
    linear = bounded(nn.Linear(6, 6).double(), bound=0.3)
    assert norm(linear) == pytest.approx(0.3, rel=1e-6)
    weight = linear.parametrizations.weight.original
    direction = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad((linear.weight * direction).sum(), weight)
    free = weight.detach().clone().requires_grad_()
    exact = 0.3 * free / torch.linalg.matrix_norm(free, 2)
    torch.testing.assert_close(gradient, torch.autograd.grad((exact * direction).sum(), free)[0], rtol=1e-3, atol=1e-5)


def test_the_cell_is_one_function_until_it_is_tightened():
    net = IMFN(width=16)
    with torch.no_grad():
        net.linears[0].parametrizations.weight.original += torch.randn(16, 1) @ torch.randn(1, 16)
    c, z = torch.rand(4, 2), torch.rand(4, 16)
    before = net.f(z, net.inject(c))
    assert net.train().f(z, net.inject(c)).equal(net.eval().f(z, net.inject(c)))
    tighten(net)
    assert not net.f(z, net.inject(c)).equal(before)


def test_a_bound_draws_no_random_numbers():
    torch.manual_seed(0)
    nn.Linear(4, 4)
    after = torch.rand(3)
    torch.manual_seed(0)
    bounded(nn.Linear(4, 4), 0.5)
    assert torch.rand(3).equal(after)


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("make", [IMFN, ISIREN])
def test_every_cell_is_a_contraction_at_the_end_of_a_fit(make: type[FilterNet], layers: int):
    """Adam's first steps change all entries alike: a new leading direction in every step."""
    net = make(width=48, layers=layers, scale=16.0, channels=1)
    task = nn.Module()
    task.net = net
    optimiser = adam(task, 1e-2, one_cycle=False)
    c = torch.rand(64, 2) * 2 - 1
    for _ in range(25):
        loss = (net.h(net.f(torch.zeros(64, 48), net.inject(c))) - c.prod(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert max(norm(linear) for linear in net.linears) <= 0.98
    free = torch.stack([torch.linalg.matrix_norm(linear.parametrizations.weight.original.detach(), 2) for linear in net.linears])
    assert float(free.max()) > 1.05, "the bound has something to do"
    assert net.lipschitz() == pytest.approx(torch.tensor([norm(linear) for linear in net.linears]).prod().item(), rel=1e-5)
    assert not any(isinstance(part, SpectralBound) for part in make(bound=None, width=8).modules())
