"""Conjugate gradients: exact after as many steps as unknowns, each row a system of its own, no step where none makes sense."""

from __future__ import annotations

import torch

from experiments.baselines.conjugate_gradient import conjugate_gradient
from tests.core.test_gmres import product_of


def definite(batch: int = 4, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    factor = torch.randn(batch, width, width)
    return torch.eye(width) + factor @ factor.mT / width, torch.randn(batch, width)


def test_as_many_steps_as_unknowns_solve() -> None:
    matrices, rhs = definite()
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=7)
    torch.testing.assert_close(solution.value, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-10)
    assert bool(solution.within(1e-9).all()) and solution.num_products == 7


def test_few_steps_are_the_best_of_their_krylov_space() -> None:
    matrices, rhs = definite()
    value = conjugate_gradient(product_of(matrices), rhs, max_steps=2).value
    basis = torch.stack([rhs, product_of(matrices)(rhs)], dim=2)  # (B, N, 2)
    weights = torch.linalg.solve(basis.mT @ matrices @ basis, (basis.mT @ rhs.unsqueeze(2)))
    torch.testing.assert_close(value, (basis @ weights).squeeze(2))


def test_the_residual_is_the_true_one() -> None:
    matrices, rhs = definite()
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=3)
    residual = (product_of(matrices)(solution.value) - rhs).norm(dim=1) / rhs.norm(dim=1)
    torch.testing.assert_close(solution.residual, residual)
    assert residual.min() > 1e-3


def test_a_row_ends_where_curvature_does_and_disturbs_nobody() -> None:
    matrices, rhs = definite()
    alone = conjugate_gradient(product_of(matrices[1:]), rhs[1:], max_steps=5).value
    matrices[0], rhs[1] = -torch.eye(7), 0.0
    solution = conjugate_gradient(product_of(matrices), rhs, max_steps=5)
    assert not solution.value[:2].any() and solution.residual.tolist()[:2] == [1.0, 0.0]
    torch.testing.assert_close(solution.value[2:], alone[1:])


def test_a_row_that_has_ended_stays_where_it_is() -> None:
    matrices, rhs = torch.diag(torch.tensor([3.0, 1.0, -1.0])).unsqueeze(0), torch.tensor([[1.0, 1.0, 0.5]])
    values = [conjugate_gradient(product_of(matrices), rhs, max_steps=steps).value for steps in range(1, 12)]
    assert values[0].any() and all(value.equal(values[1]) for value in values[2:])


def test_steps_after_the_end_change_nothing() -> None:
    matrices, rhs = definite(width=3)
    exact = torch.linalg.solve(matrices, rhs)
    torch.testing.assert_close(conjugate_gradient(product_of(matrices), rhs, max_steps=40).value, exact, rtol=1e-9, atol=1e-10)
