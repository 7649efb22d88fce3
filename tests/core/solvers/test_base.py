from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import L2Ball
from jiio_lightning.core.solvers import (
    Anderson,
    Broyden,
    FixedPoint,
    Last,
    LowestResidual,
    Method,
    Picard,
    Snapshot,
    Update,
    solve,
)
from jiio_lightning.core.solvers.base import Solution, plain_map, relative
from tests.core.modes import NoSynchronisation

METHODS: dict[str, Method] = {
    "picard": Picard(),
    "anderson-1": Anderson(1, memory=3),
    "anderson-2": Anderson(2, memory=3),
    "broyden": Broyden(memory=3),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def affine(batch: int = 4, width: int = 5, norm: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    """A v + b for each sample, and its fixed point."""
    matrix = torch.randn(batch, width, width)
    matrix = norm * matrix / torch.linalg.matrix_norm(matrix, 2)[:, None, None]
    offset = torch.randn(batch, width)
    return matrix, offset, torch.linalg.solve(torch.eye(width) - matrix, offset)


def apply(matrix: Tensor, offset: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(matrix, v.unsqueeze(2)).squeeze(2) + offset


class Spy(Method):
    """Plain iteration that remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def init(self, v0: Tensor) -> None:
        return None

    def step(self, v: Tensor, fv: Tensor, state: None) -> tuple[Tensor, None]:
        self.seen.append((v, fv))
        return 3.0 * fv, None


def test_a_fixed_point_is_the_iterate_of_lowest_residual_unless_told() -> None:
    """v = 1 - 2 v pushes iterates away from 1/3: the start is the nearest."""
    v0, steps = torch.full((1, 1), 0.3), {"max_steps": 3}
    assert FixedPoint(Picard(), **steps)(lambda v: 1 - 2 * v, v0).value.item() == pytest.approx(0.3)
    assert FixedPoint(Picard(), **steps, selection=Last())(lambda v: 1 - 2 * v, v0).value.item() == pytest.approx(0.2)


def test_relative_is_a_quotient_of_norms_and_zero_over_zero_is_zero() -> None:
    part, whole = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, 0.0]])
    assert relative(part, whole).tolist() == [0.5, 0.0]


def test_the_residual_is_that_of_the_returned_value() -> None:
    matrix, offset, _ = affine()
    solution = FixedPoint(Picard(), 7)(lambda v: apply(matrix, offset, v), torch.zeros(4, 5))
    fv = apply(matrix, offset, solution.value)
    torch.testing.assert_close(solution.residual, (fv - solution.value).norm(dim=1) / fv.norm(dim=1))
    assert solution.num_steps == 7 and bool(solution.finite.all())
    assert solution.within(float(solution.residual.max()) * 1.01).all() and not solution.within(1e-12).any()


@each_method
def test_a_row_that_has_converged_keeps_its_iterate(method: Method) -> None:
    """Sample 0 starts at its fixed point, the others do not."""
    matrix, offset, fixed = affine()
    start = torch.zeros(4, 5)
    start[0] = fixed[0]
    seen: list[Tensor] = []
    solve(
        method,
        plain_map(lambda v: apply(matrix, offset, v)),
        start,
        max_steps=10,
        tol=1e-9,
        selection=Last(),
        observers=(lambda now: seen.append(now.value),),
    )
    assert len(seen) == 10 and all(torch.equal(v[0], fixed[0]) for v in seen)
    assert not torch.equal(seen[-1][1], seen[-2][1])


@pytest.mark.parametrize("later", [torch.nan, 7.0])
def test_what_happens_to_a_row_after_it_has_converged_does_not_matter(later: float) -> None:
    """Sample 0 converges at once; later F is not finite, or moves again (a rule with a state may do that)."""
    matrix, offset, _ = affine()
    calls = [0]

    def function(v: Tensor) -> Tensor:
        calls[0] += 1
        first = v[:1] if calls[0] < 4 else torch.full_like(v[:1], later)
        return torch.cat([first, apply(matrix, offset, v)[1:]])

    start = torch.ones(4, 5)
    solution = FixedPoint(Picard(), 9, tol=1e-9, selection=Last())(function, start)
    assert solution.num_steps == 9 and bool(solution.finite.all())
    assert torch.equal(solution.value[0], start[0])


def test_the_loop_ends_when_the_last_row_has_converged() -> None:
    matrix, offset, fixed = affine(norm=0.5)
    evaluations: list[int] = []
    solution = FixedPoint(Picard(), 200, tol=1e-6)(
        lambda v: (evaluations.append(1), apply(matrix, offset, v))[1], torch.zeros(4, 5)
    )
    assert solution.num_steps == len(evaluations) < 60
    assert bool(solution.within(1e-6).all())
    torch.testing.assert_close(solution.value, fixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [Picard(), Anderson(2, 4), Broyden(6)])
def test_rows_that_are_not_independent_go_on_together(method: Method) -> None:
    """As many steps as with rows that stop, and none is farther from its fixed point; a bad row leaves the others alone."""
    slope = torch.tensor([[0.1], [0.5], [0.9], [torch.nan]])

    def function(v: torch.Tensor) -> torch.Tensor:
        return slope * v.tanh() + 1

    each, together = (FixedPoint(method, 60, 1e-6, independent=way)(function, torch.zeros(4, 3)) for way in (True, False))
    assert each.num_steps == together.num_steps < 60 and together.within(1e-6).tolist() == [True, True, True, False]
    assert bool((together.residual <= each.residual)[:3].all()) and together.residual[0] < 0.1 * each.residual[0]


def test_with_tolerance_zero_the_whole_budget_is_run_even_at_the_fixed_point() -> None:
    matrix, offset, fixed = affine()
    assert FixedPoint(Picard(), 9)(lambda v: v.clone(), fixed).num_steps == 9


def test_all_rows_not_finite_end_a_solve_with_a_tolerance() -> None:
    solution = FixedPoint(Picard(), 50, tol=1e-6)(lambda v: v * torch.nan, torch.ones(2, 3))
    assert solution.num_steps == 1 and not solution.finite.any()
    assert torch.equal(solution.value, torch.ones(2, 3)) and not solution.within(1.0).any()


@each_method
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_blows_up_falls_back_and_leaves_the_others_alone(method: Method, bad: float) -> None:
    matrix, offset, _ = affine()

    def run(spoil: bool):
        calls = [0]

        def function(v: Tensor) -> Tensor:
            calls[0] += 1
            fv = apply(matrix, offset, v)
            return fv.index_fill(0, torch.tensor([2]), bad) if spoil and calls[0] > 4 else fv

        return FixedPoint(method, 12, selection=Last())(function, torch.zeros(4, 5))

    clean, spoilt = run(False), run(True)
    others = torch.tensor([0, 1, 3])
    assert spoilt.finite.tolist() == [True, True, False, True]
    assert torch.equal(spoilt.value[others], clean.value[others])
    assert bool(torch.isfinite(spoilt.value).all())


@each_method
def test_one_sample_is_solved_as_in_a_batch(method: Method) -> None:
    matrix, offset, _ = affine()
    together = FixedPoint(method, 12)(lambda v: apply(matrix, offset, v), torch.zeros(4, 5)).value
    for i in range(4):
        rows = slice(i, i + 1)
        alone = FixedPoint(method, 12)(lambda v, r=rows: apply(matrix[r], offset[r], v), torch.zeros(1, 5)).value
        torch.testing.assert_close(together[rows], alone, rtol=1e-8, atol=1e-10)


def test_the_projection_comes_after_the_method_and_before_the_next_evaluation() -> None:
    spy, ball = Spy(), L2Ball(0.5)
    seen: list[Tensor] = []

    def update(v: Tensor) -> Update:
        seen.append(v)
        return Update(v + 1.0, torch.ones(len(v), 1), torch.ones(len(v)))

    solve(spy, update, torch.full((2, 3), 0.1), max_steps=6, selection=Last(), project=ball)
    assert all(float(v.norm(dim=1).max()) <= 0.5 + 1e-12 for v in seen)
    for (_, fv), after in zip(spy.seen, seen[1:], strict=True):
        torch.testing.assert_close(after, ball(3.0 * fv))


@pytest.mark.parametrize("method", [Anderson(2, memory=4), Anderson(1, memory=4), Broyden(memory=4)])
def test_the_history_holds_projected_iterates(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, offset, _ = affine(norm=0.95)
    seen, states = [], []
    original = type(method).step

    def step(self: Method, v: Tensor, fv: Tensor, state):
        out = original(self, v, fv, state)
        states.append(out[1].last_v)
        return out

    monkeypatch.setattr(type(method), "step", step)
    solve(
        method,
        plain_map(lambda v: apply(matrix, offset, v)),
        torch.zeros(4, 5),
        max_steps=8,
        selection=Last(),
        project=L2Ball(0.7),
        observers=(lambda now: seen.append(now.value),),
    )
    assert all(torch.equal(kept, v) for kept, v in zip(states, seen, strict=False))
    assert all(float(v.norm(dim=1).max()) <= 0.7 + 1e-12 for v in states)
    assert float(seen[-1].norm(dim=1).min()) > 0.69  # the ball is active


def test_the_budget_of_one_returns_the_start() -> None:
    matrix, offset, _ = affine()
    start = torch.randn(4, 5)
    assert torch.equal(FixedPoint(Picard(), 1)(lambda v: apply(matrix, offset, v), start).value, start)


@pytest.mark.parametrize(("max_steps", "tol"), [(0, 0.0), (-3, 0.0), (3, -1.0)])
def test_a_budget_that_cannot_be_run_is_refused(max_steps: int, tol: float) -> None:
    with pytest.raises(ValueError, match=f"max_steps={max_steps}"):
        FixedPoint(Picard(), max_steps, tol)
    with pytest.raises(ValueError, match=f"max_steps={max_steps}"):
        solve(Picard(), plain_map(lambda v: v), torch.zeros(1, 1), max_steps=max_steps, tol=tol, selection=LowestResidual())


def test_no_graph_is_kept() -> None:
    weight = torch.randn(5, 5, requires_grad=True)
    solution = FixedPoint(Picard(), 5)(lambda v: 0.1 * v @ weight, torch.ones(2, 5, requires_grad=True))
    assert not solution.value.requires_grad and not solution.residuals.requires_grad


@each_method
def test_a_fixed_budget_never_waits_for_the_device(method: Method) -> None:
    matrix, offset, _ = affine()
    start = torch.zeros(4, 5)
    with NoSynchronisation():
        FixedPoint(method, 8)(lambda v: apply(matrix, offset, v), start)


def test_a_snapshot_is_finite_where_all_its_numbers_are() -> None:
    residual = torch.tensor([[0.1, 0.2], [torch.nan, 0.0], [0.0, torch.inf], [0.0, 0.0]])
    cost = torch.tensor([1.0, 1.0, 1.0, torch.nan])
    assert Snapshot(0, torch.zeros(4, 1), residual, cost).is_finite().tolist() == [True, False, False, False]


def test_a_sample_is_as_far_as_its_worst_block() -> None:
    residuals = torch.tensor([[0.1, 0.3], [0.2, 0.0]])
    solution = Solution(torch.zeros(2, 1), residuals, torch.zeros(2), 1, torch.tensor([True, True]))
    assert solution.residual.tolist() == [0.3, 0.2]
    assert solution.within(0.25).tolist() == [False, True]
