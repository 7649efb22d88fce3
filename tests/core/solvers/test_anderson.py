from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.solvers import Anderson, FixedPoint, Last, LowestResidual, Picard
from jiio_lightning.core.solvers.anderson import _MixingState, combine, inner_products
from tests.core.solvers.test_base import affine, apply

both_types = pytest.mark.parametrize("kind", [1, 2])


def rotation(angle: float, growth: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return growth * torch.tensor([[c, -s], [s, c]])


@both_types
@pytest.mark.parametrize(("angle", "growth"), [(1.5, 1.0), (2.0, 1.2), (3.0, 1.5)])
def test_it_solves_a_rotation_on_which_picard_fails(kind: int, angle: float, growth: float) -> None:
    matrix, offset = rotation(angle, growth), torch.randn(3, 2)
    fixed = torch.linalg.solve(torch.eye(2) - matrix, offset.T).T

    def function(v: Tensor) -> Tensor:
        return v @ matrix.T + offset

    start = torch.randn(3, 2)
    mixed = FixedPoint(Anderson(kind, memory=2, ridge=1e-12), 12)(function, start)
    torch.testing.assert_close(mixed.value, fixed, rtol=0, atol=1e-7)
    plain = FixedPoint(Picard(), 12, selection=Last())(function, start)
    assert float((plain.value - fixed).norm(dim=1).min()) > 0.1


@both_types
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_with_enough_memory_an_affine_map_is_solved_in_one_more_step_than_its_width(kind: int, beta: float) -> None:
    matrix, offset, fixed = affine(width=5)
    solver = FixedPoint(Anderson(kind, memory=6, ridge=1e-14, beta=beta), 9)
    solution = solver(lambda v: apply(matrix, offset, v), torch.zeros(4, 5))
    torch.testing.assert_close(solution.value, fixed, rtol=0, atol=1e-7)


def reference_step(kind: int, vs: list[Tensor], images: list[Tensor], memory: int, beta: float) -> Tensor:
    """``v + beta g - (S + beta Y) gamma`` of one sample with matrices rebuilt from the whole history."""
    gaps = [image - v for v, image in zip(vs, images, strict=True)]
    S = torch.stack([b - a for a, b in zip(vs[:-1], vs[1:], strict=True)][-memory:], dim=1)
    Y = torch.stack([b - a for a, b in zip(gaps[:-1], gaps[1:], strict=True)][-memory:], dim=1)
    left = S if kind == 1 else Y
    gamma = torch.linalg.solve(left.T @ Y, left.T @ gaps[-1])
    return vs[-1] + beta * gaps[-1] - (S + beta * Y) @ gamma


@both_types
@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_each_step_is_the_formula_also_after_the_ring_has_wrapped(kind: int, beta: float) -> None:
    """A nonlinear map, memory 3, 9 steps: no step is exact by luck."""
    weight = 0.3 * torch.randn(8, 8)
    method = Anderson(kind, memory=3, ridge=0.0, beta=beta)
    v = torch.randn(2, 8)
    state, vs, images = method.init(v), [], []
    for step in range(9):
        image = torch.tanh(v @ weight) + 0.5
        vs.append(v)
        images.append(image)
        v, state = method.step(v, image, state)
        for row in range(2):
            if step:
                expected = reference_step(kind, [u[row] for u in vs], [u[row] for u in images], 3, beta)
            else:
                expected = vs[0][row] + beta * (images[0] - vs[0])[row]
            torch.testing.assert_close(v[row], expected, rtol=1e-7, atol=1e-9)


@both_types
@pytest.mark.parametrize("pushes", [2, 4, 5, 11])
def test_the_gram_matrix_kept_by_rows_and_columns_is_the_product_recomputed(kind: int, pushes: int) -> None:
    method = Anderson(kind, memory=4)
    state = method.init(torch.randn(3, 7))
    for _ in range(pushes):
        v = torch.randn(3, 7)
        _, state = method.step(v, torch.randn(3, 7), state)
    filled = min(pushes - 1, 4)
    left = state.moves if kind == 1 else state.turns
    expected = torch.bmm(left, state.turns.mT)[:, :filled, :filled]
    torch.testing.assert_close(state.gram[:, :filled, :filled], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.left_norm[:, :filled], left.norm(dim=2)[:, :filled], rtol=1e-12, atol=0)
    torch.testing.assert_close(state.turn_norm[:, :filled], state.turns.norm(dim=2)[:, :filled], rtol=1e-12, atol=0)
    assert state.count == pushes - 1


@both_types
def test_the_ring_holds_the_last_differences(kind: int) -> None:
    """Those of iterates, and of gaps; of type II the first ones together with the second, as it takes them."""
    method, vs, images = Anderson(kind, memory=3), torch.randn(6, 2, 5), torch.randn(6, 2, 5)
    state = method.init(vs[0])
    for v, image in zip(vs, images, strict=True):
        _, state = method.step(v, image, state)
    moves, gaps = vs.diff(dim=0), images - vs
    if kind == 2:
        moves = moves + gaps.diff(dim=0)
    kept = {tuple(state.moves[0, slot].tolist()) for slot in range(3)}
    assert kept == {tuple(moves[i, 0].tolist()) for i in (2, 3, 4)}
    turns = {tuple(state.turns[0, slot].tolist()) for slot in range(3)}
    assert turns == {tuple(gaps.diff(dim=0)[i, 0].tolist()) for i in (2, 3, 4)}


@both_types
def test_buffers_are_allocated_once(kind: int) -> None:
    method = Anderson(kind, memory=3)
    state = method.init(torch.randn(2, 5))
    places = state.moves.data_ptr(), state.turns.data_ptr(), state.gram.data_ptr()
    for _ in range(8):
        _, state = method.step(torch.randn(2, 5), torch.randn(2, 5), state)
    assert places == (state.moves.data_ptr(), state.turns.data_ptr(), state.gram.data_ptr())


@both_types
@pytest.mark.parametrize("history", ["float32", "bfloat16"])
def test_the_history_may_be_kept_in_a_lower_precision(kind: int, history: str) -> None:
    matrix, offset, fixed = affine(norm=0.9)
    method = Anderson(kind, memory=5, history_dtype=history)
    state = method.init(offset)
    assert state.moves.dtype == state.turns.dtype == getattr(torch, history)
    assert state.gram.dtype == torch.float64
    solution = FixedPoint(method, 60)(lambda v: apply(matrix, offset, v), torch.zeros(4, 5))
    assert solution.value.dtype == torch.float64
    torch.testing.assert_close(solution.value, fixed, rtol=0, atol=1e-5)
    mixed, plain = (FixedPoint(m, 10)(lambda v: apply(matrix, offset, v), torch.zeros(4, 5)) for m in (method, Picard()))
    assert bool((mixed.residual < 0.5 * plain.residual).all())


def test_products_and_combinations_in_mixed_precision_are_accumulated_in_the_higher() -> None:
    rows, vector, weights = torch.randn(2, 3, 500).bfloat16(), torch.randn(2, 500), torch.randn(2, 3)
    exact = rows.double()
    torch.testing.assert_close(inner_products(rows, vector), torch.einsum("bmn,bn->bm", exact, vector))
    torch.testing.assert_close(combine(weights, rows), torch.einsum("bm,bmn->bn", weights, exact))


@both_types
def test_a_sample_without_a_usable_history_takes_the_plain_step(kind: int) -> None:
    """Its gap is constant: all differences of gaps are zero. Without a ridge its system is singular."""
    method = Anderson(kind, memory=3, ridge=0.0)
    shift = torch.randn(5)
    matrix, offset, _ = affine()

    def function(v: Tensor, shifted: bool) -> Tensor:
        image = apply(matrix, offset, v)
        return torch.cat([image[:1], (v[1:2] + shift) if shifted else image[1:2], image[2:]])

    paths = []
    for shifted in (False, True):
        v, path = torch.zeros(4, 5), []
        state = method.init(v)
        for _ in range(4):
            v, state = method.step(v, function(v, shifted), state)
            path.append(v)
        paths.append(torch.stack(path))
    others = torch.tensor([0, 2, 3])
    assert torch.equal(paths[0][:, others], paths[1][:, others])
    torch.testing.assert_close(paths[1][:, 1], shift * torch.arange(1, 5.0).unsqueeze(1), rtol=1e-9, atol=1e-9)


@both_types
def test_the_ridge_does_not_depend_on_the_units_of_v(kind: int) -> None:
    matrix, offset, _ = affine(norm=0.95)
    solver = FixedPoint(Anderson(kind, memory=3, ridge=1e-3), 6, selection=Last())
    one = solver(lambda v: apply(matrix, offset, v), torch.zeros(4, 5)).value
    large = solver(lambda v: apply(matrix, 1e6 * offset, v), torch.zeros(4, 5)).value
    torch.testing.assert_close(large, 1e6 * one, rtol=1e-9, atol=0)


@both_types
def test_the_ridge_damps(kind: int) -> None:
    """The larger it is, the nearer the step is to the plain one; at infinity it is the plain one."""
    state: _MixingState
    steps = []
    for ridge in (0.0, 0.1, 10.0, 1e12):
        torch.manual_seed(1)
        matrix, offset, _ = affine()
        method, v = Anderson(kind, memory=3, ridge=ridge), torch.zeros(4, 5)
        state = method.init(v)
        _, state = method.step(v, apply(matrix, offset, v), state)
        image = apply(matrix, offset, offset)
        steps.append((method.step(offset, image, state)[0] - image).norm())
    assert steps[0] > steps[1] > steps[2] > steps[3] and steps[3] < 1e-10


@both_types
def test_single_precision_reaches_its_own_limit(kind: int) -> None:
    matrix, offset, fixed = affine(norm=0.9)
    solver = FixedPoint(Anderson(kind, memory=5), 40, selection=LowestResidual())
    solution = solver(lambda v: apply(matrix.float(), offset.float(), v), torch.zeros(4, 5, dtype=torch.float32))
    assert solution.value.dtype == torch.float32
    torch.testing.assert_close(solution.value.double(), fixed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"type": 3}, {"memory": 0}, {"ridge": -1e-3}])
def test_bad_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Anderson needs"):
        Anderson(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("type", [1, 2])
def test_a_solve_in_a_short_type(dtype: torch.dtype, type: int) -> None:
    solution = FixedPoint(Anderson(type), max_steps=20)(lambda v: v / 2 + 1, torch.zeros(3, 4, dtype=dtype))
    assert solution.value.dtype == dtype and (solution.value - 2).abs().max() < 0.02
