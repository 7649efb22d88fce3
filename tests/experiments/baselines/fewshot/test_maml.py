"""MAML's gradient is that of the query loss through the adaptation; FOMAML's is that with the change of weights held fixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from experiments.baselines import MAML, Conv4
from tests.experiments.baselines.fewshot.conftest import Smooth, episodes, gradient, slope


def query_loss(task: MAML, batch, weights: Tensor) -> Tensor:
    """Mean over tasks at weights ``(T, P)``, a task at a time and without torch.func.vmap."""
    return torch.stack([task.loss(*each) for each in zip(weights, batch.query, batch.query_label, strict=True)]).mean()


def adapted_by_autograd(task: MAML, batch, theta: Tensor, steps: int) -> Tensor:
    """Weights ``(T, P)`` of a loop over tasks with torch.autograd."""
    rows = []
    for image, label in zip(batch.support, batch.support_label, strict=True):
        weights = theta.clone().requires_grad_()
        for _ in range(steps):
            (change,) = torch.autograd.grad(task.loss(weights, image, label), weights)
            weights = (weights - task.inner_rate * change).detach().requires_grad_()
        rows.append(weights.detach())
    return torch.stack(rows)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_goes_through_the_adaptation(steps):
    task, batch = MAML(Smooth(), inner_rate=0.4, steps=steps), episodes()
    theta, direction = task.theta.detach(), torch.randn_like(task.theta)
    expected = slope(lambda theta: query_loss(task, batch, adapted_by_autograd(task, batch, theta, steps)), theta, direction)
    torch.testing.assert_close(gradient(task, batch) @ direction, expected, rtol=1e-6, atol=1e-9)


def test_the_first_order_gradient_holds_the_adaptation_fixed():
    task, batch = MAML(Smooth(), inner_rate=0.4, steps=2, first_order=True), episodes()
    theta, direction = task.theta.detach(), torch.randn_like(task.theta)
    change = adapted_by_autograd(task, batch, theta, 2) - theta
    expected = slope(lambda theta: query_loss(task, batch, theta + change), theta, direction)
    torch.testing.assert_close(gradient(task, batch) @ direction, expected, rtol=1e-6, atol=1e-9)
    second_order = gradient(MAML(task.net, inner_rate=0.4, steps=2), batch)
    assert (second_order - gradient(task, batch)).norm() > 0.05 * second_order.norm()


def test_evaluation_takes_its_own_steps():
    task, batch = MAML(Smooth(), steps=1, eval_steps=3).eval(), episodes()
    expected = adapted_by_autograd(task, batch, task.theta.detach(), 3)
    torch.testing.assert_close(task.adapt(batch.support, batch.support_label), expected)
    expected = adapted_by_autograd(task, batch, task.theta.detach(), 1)
    torch.testing.assert_close(task.train().adapt(batch.support, batch.support_label), expected)


@pytest.mark.parametrize("norm", ["episode", "group"])
@pytest.mark.parametrize("strided", [True, False])
def test_vectorised_tasks_are_a_loop_over_tasks(norm, strided):
    batch = episodes(tasks=3, shape=(1, 16, 16))
    task = MAML(Conv4((1, 16, 16), 3, filters=8, norm=norm, strided=strided), steps=2)
    together = gradient(task, batch)
    alone = [gradient(task, type(batch)(*(part[i : i + 1] for part in batch))) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean(dim=0), rtol=1e-8, atol=1e-10)
    logits = torch.cat([task.logits(type(batch)(*(part[i : i + 1] for part in batch))) for i in range(3)])
    torch.testing.assert_close(task.logits(batch), logits)


def test_weights_as_a_vector_are_the_net():
    task, image = MAML(Smooth()), torch.randn(2, 5, 1, 4, 4)
    logits = task.at(task.theta.expand(2, -1), image)
    torch.testing.assert_close(logits, task.net(image.flatten(0, 1)).unflatten(0, (2, 5)))
    first = functional_call(task.net, dict(task.net.named_parameters()), (image[0],))
    label = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(task.loss(task.theta, image[0], label), F.cross_entropy(first, label))
