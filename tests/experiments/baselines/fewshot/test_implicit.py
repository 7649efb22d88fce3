"""iMAML's gradient is that of the query loss at a minimum that moves with theta."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import MAML, ImplicitMAML
from tests.experiments.baselines.fewshot.conftest import Smooth, episodes, gradient, slope


def converged(**options) -> ImplicitMAML:
    return ImplicitMAML(Smooth(), inner_rate=0.15, steps=150, **{"proximity": 2.0, "products": 40, **options})


def test_the_adaptation_is_a_minimum():
    task, batch = converged(), episodes()
    theta = task.theta.detach()
    weights = task.adapt(batch.support, batch.support_label).detach().requires_grad_()
    loss = [task.loss(*each) for each in zip(weights, batch.support, batch.support_label, strict=True)]
    value = torch.stack(loss).sum() + 0.5 * task.proximity * (weights - theta).square().sum()
    assert torch.autograd.grad(value, weights)[0].abs().max() < 1e-10
    assert (weights - theta).norm(dim=1).min() > 0.1


def test_the_gradient_is_a_central_difference_that_solves_again():
    task, batch = converged(), episodes()
    theta, direction = task.theta.detach(), torch.randn_like(task.theta)

    def query_loss(theta):
        pairs = zip(batch.support, batch.support_label, batch.query, batch.query_label, strict=True)
        values = [task.loss(task.adapt_to(theta, s, label, task.steps), q, asked) for s, label, q, asked in pairs]
        return torch.stack(values).mean().detach()

    expected = slope(query_loss, theta, direction)
    torch.testing.assert_close(gradient(task, batch) @ direction, expected, rtol=1e-6, atol=1e-9)
    assert task.outer(batch)[1]["residual_outer"].max() < 1e-8
    task.products = 1
    without = gradient(task, batch) @ direction
    assert abs(without - expected) > 1e-3 * abs(expected), "else the linear system would not matter"


def test_its_value_is_the_query_loss():
    task, batch = converged(), episodes()
    weights = task.adapt(batch.support, batch.support_label)
    expected = [task.loss(*each) for each in zip(weights, batch.query, batch.query_label, strict=True)]
    torch.testing.assert_close(task.outer(batch)[0], torch.stack(expected))


def test_vectorised_tasks_are_a_loop_over_tasks():
    task, batch = ImplicitMAML(Smooth(), inner_rate=0.2, steps=5), episodes()
    alone = [gradient(task, type(batch)(*(part[i : i + 1] for part in batch))) for i in range(4)]
    torch.testing.assert_close(gradient(task, batch), torch.stack(alone).mean(dim=0))


def test_damping_leads_to_the_first_order_gradient():
    task, batch = converged(damping=1e9, products=2), episodes()
    fixed = MAML(task.net, first_order=True)
    fixed.adapt = lambda image, label: task.adapt(image, label).detach()
    torch.testing.assert_close(gradient(task, batch), gradient(fixed, batch), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{"proximity": 0.0}, {"products": 0}])
def test_impossible_settings(options):
    with pytest.raises(ValueError, match="proximity and products are to be positive"):
        ImplicitMAML(Smooth(), **options)
    with pytest.raises(ValueError, match="damping cannot be negative"):
        ImplicitMAML(Smooth(), damping=-1.0)
