"""Inner iterations of z and mu between two steps in x, and a cached loss gradient, against the update written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, Joint, L2Ball, StepSizes, Sweeps
from jiio_lightning.core.solvers import Anderson, LowestResidual, Trace
from jiio_lightning.core.steps import Linear, Plain, Settled
from tests.core.modes import NoSynchronisation
from tests.core.problems import LinearQuadratic, TanhDEQ, explicit_gradients

LINEAR = LinearQuadratic.random()
ALPHA = StepSizes(z=0.7, mu=0.4)


def random_problem() -> tuple[InnerProblem, Augmented]:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(4, net.outputs)))
    return problem, Augmented(torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 3))


def iterate_z(problem: InnerProblem, v: Augmented) -> Augmented:
    return Augmented(v.z + ALPHA.z * explicit_gradients(problem, v).mu, v.mu, v.x)


def iterate_mu(problem: InnerProblem, v: Augmented) -> Augmented:
    return Augmented(v.z, v.mu + ALPHA.mu * explicit_gradients(problem, v).z, v.x)


def joint_step(problem: InnerProblem, v: Augmented, size: float) -> Augmented:
    rows = explicit_gradients(problem, v)
    return Augmented(v.z + ALPHA.z * rows.mu, v.mu + ALPHA.mu * rows.z, v.x - size * rows.x)


@pytest.mark.parametrize("count", [2, 3])
def test_a_step_is_inner_iterations_of_z_then_of_mu_then_eq_11(count: int) -> None:
    problem, v = random_problem()
    swept = v
    for iterate in (iterate_z, iterate_mu):
        for _ in range(count - 1):
            swept = iterate(problem, swept)
    expected = joint_step(problem, swept, 0.05)
    trace = Trace()
    Joint(Plain(0.05), ALPHA, max_steps=2, sweeps=Sweeps(count))(problem, v, (trace,))
    torch.testing.assert_close(trace.snapshots[0].value, swept.pack(), rtol=1e-12, atol=1e-12)
    for iterate in (iterate_z, iterate_mu):
        for _ in range(count - 1):
            expected = iterate(problem, expected)
    torch.testing.assert_close(trace.snapshots[1].value, expected.pack(), rtol=1e-12, atol=1e-12)


def test_residuals_and_cost_are_of_the_iterate_that_is_returned() -> None:
    problem, v = random_problem()
    for sweeps, selection in ((Sweeps(3), None), (Sweeps(3), LowestResidual()), (Sweeps(2, 5), None)):
        solution = Joint(Plain(0.01), ALPHA, max_steps=7, sweeps=sweeps, selection=selection)(problem, v)
        rows = explicit_gradients(problem, solution.v)
        torch.testing.assert_close(solution.feasibility, rows.mu.norm(dim=1) / (solution.v.z + rows.mu).norm(dim=1))
        torch.testing.assert_close(solution.cost, problem.loss(solution.v.z, solution.v.x).detach())


def test_the_dual_starts_as_a_neumann_series() -> None:
    problem, v = random_problem()
    swept = v
    for _ in range(4):
        swept = iterate_mu(problem, swept)
    trace = Trace()
    Joint(Plain(0.05), ALPHA, max_steps=2, sweeps=Sweeps(dual_start=4))(problem, v, (trace,))
    torch.testing.assert_close(trace.snapshots[0].value, swept.pack(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace.snapshots[1].value, joint_step(problem, swept, 0.05).pack(), rtol=1e-12, atol=1e-12)


def test_the_dual_ends_as_a_neumann_series_at_the_x_that_is_returned() -> None:
    problem, v = random_problem()
    expected = joint_step(problem, v, 0.05)
    for _ in range(4):
        expected = iterate_mu(problem, expected)
    solution = Joint(Plain(0.05), ALPHA, max_steps=2, sweeps=Sweeps(dual_end=4))(problem, v)
    torch.testing.assert_close(solution.v.pack(), expected.pack(), rtol=1e-12, atol=1e-12)


def test_the_end_of_the_dual_costs_backward_passes_of_f_alone() -> None:
    problem, v = random_problem()
    calls: list[str] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append("f")
        return problem.f(z, x)

    def loss(z: Tensor, x: Tensor) -> Tensor:
        calls.append("loss")
        return problem.loss(z, x)

    Joint(Plain(0.05), max_steps=3, sweeps=Sweeps(dual_end=9))(InnerProblem(f, loss), v)
    assert sorted(calls) == ["f"] * 3 + ["loss"] * 3


def test_the_gradient_of_the_loss_is_cached_and_new_in_the_last_step() -> None:
    evaluated: list[int] = []
    problem = LINEAR.problem()

    def loss(z: Tensor, x: Tensor) -> Tensor:
        evaluated.append(len(calls))
        return problem.loss(z, x)

    calls: list[int] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(0)
        return problem.f(z, x)

    solution = Joint(Plain(0.01), max_steps=10, sweeps=Sweeps(loss_every=4))(InnerProblem(f, loss), LINEAR.start())
    assert len(calls) == 10 and evaluated == [1, 5, 9, 10], "after the evaluations of f in steps 0, 4, 8 and the last"
    torch.testing.assert_close(solution.cost, problem.loss(solution.v.z, solution.v.x))


@pytest.mark.parametrize("sweeps", [Sweeps(2), Sweeps(loss_every=3), Sweeps(3, 2, 5), Sweeps(2, 1, 3, 3)], ids=repr)
def test_the_fixed_point_is_the_same(sweeps: Sweeps) -> None:
    solution = Joint(Plain(LINEAR.step()), max_steps=1500, sweeps=sweeps)(LINEAR.problem(), LINEAR.start())
    expected = LINEAR.solution()
    worst = max(float((getattr(solution.v, name) - getattr(expected, name)).abs().max()) for name in ("z", "mu", "x"))
    assert worst < 1e-8


def test_a_sample_does_not_see_the_others() -> None:
    problem, start = LINEAR.problem(), LINEAR.start()
    solver = Joint(Plain(LINEAR.step()), max_steps=20, sweeps=Sweeps(2, 3, 2), method=Anderson(memory=3))
    whole = solver(problem, start).v.pack()
    assert torch.isfinite(whole).all()
    spoiled = Augmented(start.z.clone(), start.mu.clone(), start.x.clone())
    spoiled.z[0] = float("nan")
    torch.testing.assert_close(solver(problem, spoiled).v.pack()[1:], whole[1:], rtol=1e-9, atol=1e-9)


def test_the_plain_setting_is_the_paper_bit_by_bit() -> None:
    """Sweeps() must not change a loss curve: one backward pass for f and the loss together."""
    problem, v = random_problem()
    trace, expected = Trace(), v
    Joint(Plain(0.05), max_steps=3, sweeps=Sweeps())(problem, v, (trace,))
    for now in trace.snapshots:
        assert torch.equal(now.value, expected.pack())
        rows = problem.gradients(expected)
        expected = Augmented(expected.z + 0.8 * rows.mu, expected.mu + 0.6 * rows.z, expected.x - 0.05 * rows.x)


def test_no_step_waits_for_the_device() -> None:
    with NoSynchronisation():
        Joint(Plain(0.01), max_steps=9, sweeps=Sweeps(2, 4, 3, 2))(LINEAR.problem(), LINEAR.start())


def test_the_ball_holds() -> None:
    problem = InnerProblem(LINEAR.problem().f, LINEAR.problem().loss, L2Ball(0.1))
    solution = Joint(Plain(5.0, Settled(Linear(), 2)), max_steps=12, sweeps=Sweeps(2, 4, 3))(problem, LINEAR.start())
    torch.testing.assert_close(solution.v.x.norm(dim=1), torch.full((len(solution.cost),), 0.1))


def test_bad_settings_are_refused() -> None:
    for bad in ({"count": 0}, {"loss_every": 0}, {"dual_start": -1}, {"dual_end": -1}):
        with pytest.raises(ValueError, match="sweeps need count and loss_every >= 1"):
            Sweeps(**bad)
    for judge in ({"tol": 1e-3}, {"selection": LowestResidual()}):
        with pytest.raises(ValueError, match="loss_every: 1"):
            Joint(sweeps=Sweeps(loss_every=2), **judge)
