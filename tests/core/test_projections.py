from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Box, BoxedBall, L2Ball
from tests.core.modes import NoSynchronisation

LOW, HIGH = -torch.rand(40, 6, dtype=torch.float64), torch.rand(40, 6, dtype=torch.float64)
PROJECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ball": L2Ball(0.8),
    "box": Box(LOW, HIGH),
    "box of numbers": Box(-0.2, 0.5),
    "half a box": Box(LOW, 0.5),
    "boxed ball": BoxedBall(L2Ball(0.8), Box(LOW, HIGH)),
    "boxed ball, box of numbers": BoxedBall(L2Ball(0.8), Box(-0.2, 0.5)),
    "boxed ball, 0 on the boundary": BoxedBall(L2Ball(0.8), Box(0.0, HIGH)),
    "boxed ball, the ball never active": BoxedBall(L2Ball(9.0), Box(-0.2, 0.5)),
    "boxed ball, the box never active": BoxedBall(L2Ball(0.1), Box(-0.2, 0.5)),
}
each = pytest.mark.parametrize("project", PROJECTIONS.values(), ids=PROJECTIONS)


def points() -> Tensor:
    """Some inside, some far outside of everything."""
    return torch.randn(40, 6) * torch.logspace(-2, 2, 40).unsqueeze(1)


@each
def test_a_projection_is_idempotent(project: Callable[[Tensor], Tensor]) -> None:
    once = project(points())
    torch.testing.assert_close(project(once), once, rtol=1e-13, atol=1e-13)


@each
def test_no_feasible_point_is_nearer(project: Callable[[Tensor], Tensor]) -> None:
    """(x - P(x))^T (c - P(x)) <= 0 for every c of a convex set, which is what being nearest means."""
    x = points()
    nearest = project(x)
    for _ in range(60):
        feasible = project(2.0 * torch.randn(40, 6))
        torch.testing.assert_close(project(feasible), feasible, rtol=1e-12, atol=1e-12)
        slope = ((x - nearest) * (feasible - nearest)).sum(dim=1)
        assert float((slope / (1 + x.norm(dim=1))).max()) < 1e-12


@each
def test_a_projection_does_not_stretch(project: Callable[[Tensor], Tensor]) -> None:
    a, b = points(), points()
    assert bool(((project(a) - project(b)).norm(dim=1) <= (a - b).norm(dim=1) * (1 + 1e-12)).all())


@each
def test_it_runs_without_host_synchronisation(project: Callable[[Tensor], Tensor]) -> None:
    x = points()
    with NoSynchronisation():
        project(x)


@each
def test_its_derivative_is_the_central_difference(project: Callable[[Tensor], Tensor]) -> None:
    """The full KKT gradient differentiates the projection (Eq. 16-17)."""
    x, direction, cotangent, step = points(), torch.randn(40, 6), torch.randn(40, 6), 1e-7
    leaf = x.clone().requires_grad_()
    ours = (torch.autograd.grad(project(leaf), leaf, cotangent)[0] * direction).sum(dim=1)
    theirs = ((project(x + step * direction) - project(x - step * direction)) * cotangent).sum(dim=1) / (2 * step)
    smooth = (ours - theirs).abs() < 1e-5  # no sample sits on a kink, but one may be near
    assert int(smooth.sum()) >= 39, (ours - theirs).abs().sort().values[-4:]


def test_the_sets_are_what_they_say() -> None:
    x = points()
    assert bool((L2Ball(0.8)(x).norm(dim=1) <= 0.8 + 1e-12).all())
    inside = Box(LOW, HIGH)(x)
    assert bool(((inside >= LOW) & (inside <= HIGH)).all())
    both = BoxedBall(L2Ball(0.8), Box(LOW, HIGH))(x)
    assert bool(((both >= LOW) & (both <= HIGH)).all()) and bool((both.norm(dim=1) <= 0.8 + 1e-12).all())
    outside = Box(LOW, HIGH)(x).norm(dim=1) > 0.8  # then the ball has to be met exactly
    assert 10 < int(outside.sum()) < 40
    torch.testing.assert_close(both[outside].norm(dim=1), torch.full((int(outside.sum()),), 0.8), rtol=1e-12, atol=0)


def test_points_inside_do_not_move_at_all() -> None:
    x = 0.01 * torch.randn(40, 6)
    assert torch.equal(L2Ball(0.8)(x), x)
    assert torch.equal(Box(-1.0, 1.0)(x), x)
    assert torch.equal(BoxedBall(L2Ball(0.8), Box(-1.0, 1.0))(x), x)


def test_one_set_after_the_other_is_not_the_nearest_point() -> None:
    """Why BoxedBall is there."""
    x, ball, box = torch.tensor([[3.0, 0.5]]), L2Ball(1.0), Box(-1.0, 0.6)
    exact, naive = BoxedBall(ball, box)(x), box(ball(x))
    assert float((x - exact).norm()) < float((x - naive).norm()) - 1e-3


def test_a_ball_of_radius_zero_is_the_origin() -> None:
    assert not L2Ball(0.0)(points()).any()
    assert not BoxedBall(L2Ball(0.0), Box(-1.0, 1.0))(points()).any()


@pytest.mark.parametrize("radius", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_derivative_at_the_origin_is_the_identity(radius: float, dtype: torch.dtype) -> None:
    x = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    for project in (L2Ball(radius), BoxedBall(L2Ball(radius), Box(-1.0, 1.0))):
        (gradient,) = torch.autograd.grad(project(x).sum(), x)
        assert torch.equal(gradient, torch.ones(1, 3, dtype=dtype))


@pytest.mark.parametrize("project", [L2Ball(0.8), Box(-0.2, 0.5), BoxedBall(L2Ball(0.8), Box(-0.2, 0.5))])
def test_a_row_that_is_not_finite_leaves_the_others_alone(project: Callable[[Tensor], Tensor]) -> None:
    x = points()
    spoilt = x.index_fill(0, torch.tensor([3]), torch.nan)
    others = torch.arange(40) != 3
    assert torch.equal(project(spoilt)[others], project(x)[others])
    assert torch.isnan(project(spoilt)[3]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    x = points().to(dtype)
    for project in (L2Ball(0.8), Box(-0.2, 0.5), BoxedBall(L2Ball(0.8), Box(-0.2, 0.5))):
        assert project(x).dtype == dtype
        assert float(project(x).norm(dim=1).max()) <= (0.8 + 1e-6 if not isinstance(project, Box) else 2)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        L2Ball(-1.0)
