from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, Joint, L2Ball, SolveError, Sweeps
from jiio_lightning.core.solvers import Anderson
from jiio_lightning.core.steps import Plain
from tests.core.modes import NoSynchronisation
from tests.core.problems import LinearQuadratic, TanhDEQ

SIZES = [(6, 3, 0), (6, 3, 2), (12, 5, 28), (12, 5, 36), (20, 8, 0), (40, 3, 1)]  # seed 2: condition 34; 28 and 36: 23
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
each_precision = pytest.mark.parametrize(("dtype", "tol"), TOLERANCES.items(), ids=str)


def linear(hidden: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> LinearQuadratic:
    made = LinearQuadratic.random(batch=8, hidden=hidden, width=width, seed=seed)
    return replace(made, **{k: getattr(made, k).to(dtype) for k in ("weight", "drive", "bias", "target")})


def tanh(
    hidden: int, width: int, outputs: int, seed: int, sign: float = 1.0, radius: float = 0.0
) -> tuple[InnerProblem, Augmented]:
    net = TanhDEQ(hidden, width, outputs, seed)
    loss = net.fit(torch.randn(8, outputs), ridge=0.2 if sign > 0 else 0.0, sign=sign)
    problem = InnerProblem(net.f, loss, L2Ball(radius)) if radius else InnerProblem(net.f, loss)
    return problem, Augmented.start(torch.zeros(8, width), hidden)


@each_precision
@pytest.mark.parametrize(("hidden", "width", "seed"), SIZES)
def test_a_tolerance_without_a_step_size_is_reached_in_z_mu_and_x(
    hidden: int, width: int, seed: int, dtype: torch.dtype, tol: float
) -> None:
    problem = linear(hidden, width, seed, dtype)
    solution, exact = Joint(tol=tol)(problem.problem(), problem.start()).require(), problem.solution()
    assert bool(solution.converged.all()) and solution.v.x.dtype == dtype
    assert float((solution.v.x - exact.x).norm() / exact.x.norm()) < 100 * tol


@each_precision
@pytest.mark.parametrize(("hidden", "width", "outputs"), [(5, 3, 4), (12, 5, 8), (30, 6, 20)])
def test_so_it_is_where_everything_is_nonlinear(hidden: int, width: int, outputs: int, dtype: torch.dtype, tol: float) -> None:
    torch.set_default_dtype(dtype)
    for seed in range(3):
        problem, start = tanh(hidden, width, outputs, seed)
        Joint(tol=tol)(problem, start).require()


@pytest.mark.parametrize(("hidden", "width", "seed"), SIZES[:4])
def test_the_steps_are_at_most_three_times_those_of_tuned_anderson(hidden: int, width: int, seed: int) -> None:
    problem = linear(hidden, width, seed)
    steps = Joint(tol=1e-10)(problem.problem(), problem.start()).require().num_steps
    tuned = [
        Joint(Plain(size), method=Anderson(type=1, memory=40, ridge=1e-12), max_steps=steps, tol=1e-10) for size in (0.01, 0.05)
    ]
    solved = [solver(problem.problem(), problem.start()) for solver in tuned]
    assert steps <= 3 * min(solution.num_steps for solution in solved if bool(solution.converged.all()))


@pytest.mark.parametrize(("hidden", "width", "outputs"), [(5, 3, 4), (12, 5, 8)])
def test_an_attack_on_its_sphere_converges_in_float32(hidden: int, width: int, outputs: int) -> None:
    torch.set_default_dtype(torch.float32)
    found = []
    for seed in range(3):
        problem, start = tanh(hidden, width, outputs, seed, sign=-1.0, radius=0.5)
        found.append(Joint(tol=1e-5, max_steps=400)(problem, start))
        assert float(found[-1].v.x.norm(dim=1).max()) <= 0.5 + 1e-6
    on_sphere = torch.cat([solution.v.x.norm(dim=1) > 0.499 for solution in found])
    assert float(on_sphere.float().mean()) > 0.8, "the ball is not active: a poor example"
    assert float(torch.cat([solution.converged for solution in found]).float().mean()) >= 0.95


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_factor_on_the_loss_changes_little(scale: float) -> None:
    one, other = linear(6, 3, 0), replace(linear(6, 3, 0), scale=scale)
    first, second = (Joint(tol=1e-8)(p.problem(), p.start()).require() for p in (one, other))
    assert abs(first.num_steps - second.num_steps) <= 12
    torch.testing.assert_close(first.v.x, second.v.x, rtol=0, atol=1e-6)


def test_samples_are_independent() -> None:
    problem = linear(6, 3, 0)
    together = Joint(tol=1e-8)(problem.problem(), problem.start())
    for i in range(3):
        alone = problem.rows(slice(i, i + 1))
        row = Joint(tol=1e-8)(alone.problem(), alone.start())
        torch.testing.assert_close(together.v.pack()[i : i + 1], row.v.pack(), rtol=1e-6, atol=1e-7)


def test_a_sample_that_is_not_finite_disturbs_nobody() -> None:
    problem, bad = linear(6, 3, 0), torch.zeros(8, 6)
    bad[1] = torch.nan
    poisoned = InnerProblem(lambda z, x: problem.f(z, x) + bad, problem.loss)
    solution, clean = (Joint(tol=1e-8)(p, problem.start()) for p in (poisoned, problem.problem()))
    assert solution.converged.tolist() == [True, False] + 6 * [True]
    rows = torch.tensor([0, 2, 3, 4, 5, 6, 7])
    assert torch.equal(solution.v.pack()[rows], clean.v.pack()[rows])


def test_require_says_whether_x_was_judged() -> None:
    problem = linear(12, 5, 28)
    with pytest.raises(SolveError, match=r"8 of 8 samples have not converged to tol=1e-10.*x was judged, by tol=1e-10"):
        Joint(tol=1e-10, max_steps=20)(problem.problem(), problem.start()).require()
    with pytest.raises(SolveError, match="x was not judged"):
        Joint(max_steps=2)(problem.problem(), problem.start()).require()
    unjudged = Joint()(problem.problem(), problem.start()).require()
    assert not unjudged.converged.any()


def test_the_default_still_never_waits_for_the_device() -> None:
    problem = linear(6, 3, 0)
    with NoSynchronisation():
        Joint()(problem.problem(), problem.start())


def test_what_has_no_use_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="takes its own steps"):
        Joint(tol=1e-5, method=Anderson())


def test_a_step_in_bfloat16_keeps_the_solver_in_float32() -> None:
    torch.set_default_dtype(torch.float32)
    well = replace(linear(12, 5, 0, torch.float32), ridge=3.0)
    start, exact = well.start(), Joint(max_steps=60)(well.problem(), well.start())
    seen: list[torch.dtype] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        product = z @ well.weight.T
        seen.append(product.dtype)
        return well.f(z, x).to(product.dtype)  # as a net's last layer does

    with torch.autocast("cpu", dtype=torch.bfloat16):
        problem = InnerProblem(f, well.loss)
        for settings in ({}, {"method": Anderson(memory=4)}, {"sweeps": Sweeps(2)}):
            solution = Joint(max_steps=60, **settings)(problem, start)
            assert {block.dtype for block in (*vars(solution.v).values(), solution.residuals, solution.cost)} == {torch.float32}
        near = Joint(max_steps=60)(problem, start)
        assert problem.in_full_precision().f(start.z, start.x).dtype == torch.float32
    assert set(seen[:-1]) == {torch.bfloat16} and seen[-1] == torch.float32
    torch.testing.assert_close(near.cost, exact.cost, rtol=1e-2, atol=0)
    assert float((near.v.z - exact.v.z).norm() / exact.v.z.norm()) < 3e-2


def test_the_gradient_of_a_young_mu_is_no_unit_for_x() -> None:
    """A head that normalises has a slope of 10^4 at z = 0, which mu takes up before x has moved."""
    inject, target = 0.3 * torch.randn(6, 3), torch.randn(8, 6)

    def loss(z: Tensor, x: Tensor) -> Tensor:
        return (z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt() - target).square().sum(dim=1) + 0.1 * x.square().sum(
            dim=1
        )

    def slope(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(2 * (x @ inject.T + 1), x).sum(), x)[0].norm(dim=1)

    problem = InnerProblem(lambda z, x: z / 2 + x @ inject.T + 1, loss)
    solution = Joint(tol=1e-6)(problem, Augmented.start(torch.zeros(8, 3), hidden=6)).require()
    assert bool((slope(solution.v.x) < 1e-5 * slope(torch.zeros(8, 3))).all())


def test_no_move_goes_far_beyond_the_last() -> None:
    """Near an inflection the slope hardly turns and BFGS would leave for where the loss is flat, and find it converged there."""
    distance = torch.linspace(0.3, 3.5, 400).unsqueeze(1)
    problem = InnerProblem(lambda z, x: x + 0 * z, lambda z, x: 1 - torch.exp(-(z - distance).square() / 2).sum(dim=1))
    solution = Joint(tol=1e-8, max_steps=400)(problem, Augmented.start(torch.zeros(400, 1), hidden=1)).require()
    assert torch.allclose(solution.v.x, distance, atol=1e-5)
