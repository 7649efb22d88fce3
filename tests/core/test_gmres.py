from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.gmres import CHECK, gmres


def product_of(matrices: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda u: torch.bmm(matrices, u.unsqueeze(2)).squeeze(2)


def nonsymmetric(batch: int = 5, width: int = 12, spread: float = 0.2) -> tuple[Tensor, Tensor]:
    matrices = torch.eye(width) + spread * torch.randn(batch, width, width)
    assert (matrices - matrices.mT).abs().max() > 0.1
    return matrices, torch.randn(batch, width)


def test_a_full_basis_solves_nonsymmetric_systems() -> None:
    matrices, rhs = nonsymmetric()
    solution = gmres(product_of(matrices), rhs, memory=12)
    torch.testing.assert_close(solution.value, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-10)
    assert bool(solution.within(1e-10).all())


def test_an_indefinite_symmetric_system() -> None:
    """What the KKT system is like."""
    factor = torch.randn(3, 8, 8)
    matrices = factor + factor.mT
    rhs = torch.randn(3, 8)
    solution = gmres(product_of(matrices), rhs, memory=8)
    torch.testing.assert_close(solution.value, torch.linalg.solve(matrices, rhs), rtol=1e-7, atol=1e-8)


def test_restarts_go_on_where_a_short_basis_ends() -> None:
    matrices, rhs = nonsymmetric(spread=0.05)
    once = gmres(product_of(matrices), rhs, memory=3)
    often = gmres(product_of(matrices), rhs, memory=3, restarts=30, tol=1e-12)
    assert float(once.residual.min()) > 1e-6
    assert bool(often.within(1e-12).all()) and often.num_products < 30 * 4
    torch.testing.assert_close(often.value, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-10)


def test_the_residual_is_the_true_one_and_says_when_the_budget_was_too_small() -> None:
    matrices, rhs = nonsymmetric(spread=0.4)
    solution = gmres(product_of(matrices), rhs, memory=4)
    true = (product_of(matrices)(solution.value) - rhs).norm(dim=1) / rhs.norm(dim=1)
    torch.testing.assert_close(solution.residual, true, rtol=1e-10, atol=0)
    assert not solution.within(1e-3).any()


def test_each_cycle_minimises_the_residual_over_its_krylov_space() -> None:
    matrices, rhs = nonsymmetric(batch=2, width=6, spread=0.5)
    krylov = torch.stack([torch.linalg.matrix_power(matrices, k) @ rhs.unsqueeze(2) for k in range(3)], dim=1).squeeze(3)
    images = torch.einsum("bij,bkj->bik", matrices, krylov)
    weights = torch.linalg.lstsq(images, rhs.unsqueeze(2)).solution
    expected = torch.einsum("bki,bk->bi", krylov, weights.squeeze(2))
    torch.testing.assert_close(gmres(product_of(matrices), rhs, memory=3).value, expected, rtol=1e-9, atol=1e-10)


def test_the_basis_stays_orthogonal_where_the_system_is_badly_conditioned() -> None:
    """One pass of Gram-Schmidt loses it here, and the residual stalls with it."""
    scale = torch.logspace(0, -7, 40)
    left, right = (torch.linalg.qr(torch.randn(2, 40, 40)).Q for _ in range(2))
    matrices = left * scale @ right
    rhs = torch.randn(2, 40)
    solution = gmres(product_of(matrices), rhs, memory=40)
    assert bool(solution.within(1e-8).all()), solution.residual


def test_products_are_counted() -> None:
    matrices, rhs = nonsymmetric()
    calls: list[int] = []
    product = product_of(matrices)
    solution = gmres(lambda u: (calls.append(1), product(u))[1], rhs, memory=4, restarts=3, tol=0.0)
    assert solution.num_products == len(calls)


@pytest.mark.parametrize("case", ["zero matrix", "rank one", "identity", "zero right side"])
def test_an_exhausted_basis_ends_quietly(case: str) -> None:
    rhs, matrices = torch.randn(1, 6), torch.eye(6).expand(1, 6, 6).clone()
    if case == "zero matrix":
        matrices = torch.zeros(1, 6, 6)
    if case == "rank one":
        matrices = torch.ones(1, 6, 6)
    if case == "zero right side":
        rhs = torch.zeros(1, 6)
    solution = gmres(product_of(matrices), rhs, memory=6, restarts=3)
    assert bool(torch.isfinite(solution.value).all())
    solvable = case in ("identity", "zero right side")
    assert bool(solution.within(1e-10).all()) is solvable


@pytest.mark.parametrize("bad", ["zero", "rank one", "nan", "inf"])
def test_a_bad_system_does_not_change_the_others(bad: str) -> None:
    matrices, rhs = nonsymmetric()
    clean = gmres(product_of(matrices), rhs, memory=12, restarts=2, tol=0.0)
    spoilt = matrices.clone()
    spoilt[1] = {"zero": 0.0, "rank one": 1.0, "nan": torch.nan, "inf": torch.inf}[bad]
    solution = gmres(product_of(spoilt), rhs, memory=12, restarts=2, tol=0.0)
    others = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close(solution.value[others], clean.value[others], rtol=1e-12, atol=1e-12)
    assert not solution.within(1e-3)[1]  # a residual of NaN is not within anything


def test_single_precision_reaches_its_own_limit() -> None:
    matrices, rhs = nonsymmetric()
    solution = gmres(product_of(matrices.float()), rhs.float(), memory=12, restarts=2, tol=0.0)
    assert solution.value.dtype == torch.float32 and bool(solution.within(1e-5).all())


def test_the_basis_stops_growing_where_all_are_solved() -> None:
    """Within one check of the products that the slowest system needs, and never short of the tolerance."""
    matrices, rhs = nonsymmetric(width=60, spread=0.05)
    solution = gmres(product_of(matrices), rhs, memory=60, tol=1e-6)
    assert bool(solution.within(1e-6).all())
    needed = next(k for k in range(1, 60) if gmres(product_of(matrices), rhs, memory=k, tol=0.0).within(1e-6).all())
    assert needed < solution.num_products <= needed + CHECK  # and one product for the true residual
    assert gmres(product_of(matrices), torch.zeros_like(rhs)).num_products == 0


def test_a_slow_system_does_not_change_what_the_others_get() -> None:
    """Each takes part until it is solved itself."""
    matrices, rhs = nonsymmetric(width=40, spread=0.03)
    mixed = matrices.clone()
    mixed[1] += 0.15 * torch.randn(40, 40)
    with_slow = gmres(product_of(mixed), rhs, memory=40, restarts=2, tol=1e-5)
    without = gmres(product_of(matrices), rhs, memory=40, restarts=2, tol=1e-5)
    others = torch.tensor([0, 2, 3, 4])
    assert with_slow.num_products > without.num_products
    torch.testing.assert_close(with_slow.value[others], without.value[others], rtol=1e-10, atol=1e-12)


def test_a_system_stops_just_where_its_residual_is_below_the_tolerance() -> None:
    """The running estimate is the residual itself: a tolerance a little above or below it makes the difference of a product."""
    matrices, rhs = nonsymmetric(width=10, spread=0.3)
    for memory in (2, 5, 9):
        best = gmres(product_of(matrices), rhs, memory=memory, tol=0.0).residual
        slowest = int(best.argmax())
        last = float(best[slowest])
        above, below = (gmres(product_of(matrices), rhs, memory=10, tol=share * last).residual for share in (1.001, 0.999))
        assert float(above[slowest]) == pytest.approx(last, rel=1e-9)
        assert float(below[slowest]) < 0.99 * last


def test_a_solved_system_takes_no_part_in_a_restart() -> None:
    """It multiplies zeros from then on, and its value stays as it is."""
    matrices, rhs = nonsymmetric(batch=2, spread=0.05)
    matrices[0] = 2 * torch.eye(12)
    seen: list[Tensor] = []

    def product(u: Tensor) -> Tensor:
        seen.append(u.clone())
        return product_of(matrices)(u)

    solution = gmres(product, rhs, memory=3, restarts=3, tol=1e-12)
    torch.testing.assert_close(solution.value[0], rhs[0] / 2, rtol=1e-14, atol=0)
    assert len(seen) == solution.num_products == 3 * 4
    assert not any(u[0].any() for u in (*seen[4:7], *seen[8:11])) and all(u[1].any() for u in seen)
