"""iMAML's gradient is that of the query loss at a minimum that moves with theta; its linear systems are solved row by row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from experiments.baselines import MAML, ImplicitMAML
from experiments.baselines.fewshot.implicit import conjugate_gradient
from tests.core.test_gmres import product_of
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


def test_the_gradient_is_a_central_difference_of_re_solved_minima():
    task, batch = converged(), episodes()
    theta, direction = task.theta.detach(), torch.randn_like(task.theta)

    def query_loss(theta):
        weights = vmap(lambda image, label: task.adapt_to(theta, image, label, task.steps))(batch.support, batch.support_label)
        return vmap(task.loss)(weights, batch.query, batch.query_label).mean().detach()

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


def definite(batch: int = 4, width: int = 7) -> tuple[Tensor, Tensor]:
    factor = torch.randn(batch, width, width)
    return torch.eye(width) + factor @ factor.mT / width, torch.randn(batch, width)


def test_as_many_products_as_unknowns_solve():
    matrices, rhs = definite()
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=7)
    torch.testing.assert_close(solution.value, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-10)
    assert bool(solution.within(1e-9).all()) and solution.num_products == 7


def test_few_steps_are_the_best_of_their_krylov_space():
    matrices, rhs = definite()
    value = conjugate_gradient(product_of(matrices), rhs, max_steps=2).value
    basis = torch.stack([rhs, product_of(matrices)(rhs)], dim=2)  # (B, N, 2)
    weights = torch.linalg.solve(basis.mT @ matrices @ basis, (basis.mT @ rhs.unsqueeze(2)))
    torch.testing.assert_close(value, (basis @ weights).squeeze(2))


def test_the_residual_is_the_true_one():
    matrices, rhs = definite()
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=3)
    residual = (product_of(matrices)(solution.value) - rhs).norm(dim=1) / rhs.norm(dim=1)
    torch.testing.assert_close(solution.residual, residual)
    assert residual.min() > 1e-3


def test_a_row_ends_where_curvature_does_and_disturbs_nobody():
    matrices, rhs = definite()
    alone = conjugate_gradient(product_of(matrices[1:]), rhs[1:], max_steps=5).value
    matrices[0], rhs[1] = -torch.eye(7), 0.0
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=5)
    assert not solution.value[:2].any() and solution.residual.tolist()[:2] == [1.0, 0.0]
    torch.testing.assert_close(solution.value[2:], alone[1:])


def test_a_row_that_has_ended_stays_where_it_is():
    matrices, rhs = torch.diag(torch.tensor([3.0, 1.0, -1.0])).unsqueeze(0), torch.tensor([[1.0, 1.0, 0.5]])
    values = [conjugate_gradient(product_of(matrices), rhs, max_steps=steps).value for steps in range(1, 12)]
    assert values[0].any() and all(value.equal(values[1]) for value in values[2:])


def test_steps_after_the_end_change_nothing():
    matrices, rhs = definite(width=3)
    exact = torch.linalg.solve(matrices, rhs)
    torch.testing.assert_close(conjugate_gradient(product_of(matrices), rhs, max_steps=40).value, exact, rtol=1e-9, atol=1e-10)
