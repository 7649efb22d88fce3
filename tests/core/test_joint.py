from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, Joint, L2Ball, StepSizes
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.nested import Nested
from jiio_lightning.core.solvers import Anderson, Broyden, FixedPoint, Last, LowestCost, LowestResidual, Picard, Selection, Trace
from jiio_lightning.core.solvers.base import Method
from jiio_lightning.core.steps import Adam, Cosine, Normalised, Plain, SelfScaled, StepRule
from tests.core.modes import LiveBytes, NoSynchronisation
from tests.core.problems import LinearQuadratic, TanhDEQ, explicit_gradients

LINEAR = LinearQuadratic.random()
ROUND = replace(LINEAR, ridge=3.0)  # well conditioned: for what takes a whole solve for each step
METHODS = {
    "picard": (Picard(), 1500),
    "anderson-1": (Anderson(1, memory=8, ridge=1e-12), 80),
    "anderson-2": (Anderson(2, memory=8, ridge=1e-12), 80),
    "anderson-2-beta": (Anderson(2, memory=8, ridge=1e-12, beta=0.5), 120),
    "broyden": (Broyden(memory=40), 80),
}
RULES: dict[str, StepRule] = {
    "plain": Plain(LINEAR.step()),
    "normalised": Normalised(0.05),
    "adam": Adam(0.05),
    "default": SelfScaled(),
}
each_method = pytest.mark.parametrize("method", [m for m, _ in METHODS.values()], ids=METHODS)
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def nested(steps: int = 20, rule: StepRule | None = None, warm: bool = False) -> Nested:
    """The baseline with solves of z and mu that are exact to 1e-12, and its last x: the cheapest is one to sqrt(eps) only."""
    solver = FixedPoint(Picard(), 25)
    return Nested(rule or Plain(LINEAR.step(1.7)), solver, solver, max_steps=steps, warm=warm, selection=Last())


def worst_error(v: Augmented, expected: Augmented) -> float:
    return max(float((getattr(v, k) - getattr(expected, k)).abs().max()) for k in ("z", "mu", "x"))


# --- the update ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [None, 0.5])
def test_one_step_is_eq_11_with_explicit_jacobians(radius: float | None) -> None:
    net = TanhDEQ()
    target, alpha, a_x = torch.randn(4, net.outputs), StepSizes(z=0.7, mu=0.4), 0.05
    project = L2Ball(radius) if radius else (lambda x: x)
    problem = InnerProblem(net.f, net.fit(target), project)
    v = Augmented(torch.randn(4, 5), torch.randn(4, 5), project(torch.randn(4, 3)))
    rows = explicit_gradients(problem, v)
    pulled_mu = rows.z + v.mu  # J_z^T mu + dl/dz
    expected = Augmented(
        (1 - alpha.z) * v.z + alpha.z * net.f(v.z, v.x).detach(),
        (1 - alpha.mu) * v.mu + alpha.mu * pulled_mu,
        project(v.x - a_x * rows.x),
    )
    trace = Trace()
    Joint(Plain(a_x), alpha, max_steps=2)(problem, v, (trace,))
    torch.testing.assert_close(trace.snapshots[0].value, v.pack(), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(trace.snapshots[1].value, expected.pack(), rtol=1e-12, atol=1e-12)


def test_the_residuals_are_relative_to_the_undamped_rows() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(4, net.outputs)))
    v = Augmented(torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 3))
    rows = explicit_gradients(problem, v)
    solution = Joint(Plain(0.1), StepSizes(0.3, 0.2), max_steps=1)(problem, v)
    torch.testing.assert_close(solution.feasibility, rows.mu.norm(dim=1) / (v.z + rows.mu).norm(dim=1))
    torch.testing.assert_close(solution.residuals[:, 1], rows.z.norm(dim=1) / (v.mu + rows.z).norm(dim=1))
    torch.testing.assert_close(solution.residuals[:, 2], torch.ones(4))
    torch.testing.assert_close(solution.cost, problem.loss(v.z, v.x).detach())


# --- it solves what has a closed form --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "steps"), METHODS.values(), ids=METHODS)
def test_the_closed_form_is_reached(method: Method, steps: int) -> None:
    solution = Joint(Plain(LINEAR.step()), method=method, max_steps=steps)(LINEAR.problem(), LINEAR.start())
    assert worst_error(solution.v, LINEAR.solution()) < 1e-8
    assert solution.num_steps == steps and bool(solution.finite.all())


@pytest.mark.parametrize("warm", [False, True])
def test_nested_reaches_the_closed_form(warm: bool) -> None:
    solution = nested(steps=50, rule=Plain(ROUND.step(1.4)), warm=warm)(ROUND.problem(), ROUND.start())
    assert worst_error(solution.v, ROUND.solution()) < 1e-8


@pytest.mark.parametrize("name", ["anderson-1", "anderson-2", "broyden"])
def test_acceleration_accelerates(name: str) -> None:
    """At 80 steps, where these are at 1e-8, the plain iteration is nowhere near."""
    steps = METHODS[name][1]
    plain = Joint(Plain(LINEAR.step()), max_steps=steps)(LINEAR.problem(), LINEAR.start())
    assert worst_error(plain.v, LINEAR.solution()) > 1e-4


@pytest.mark.parametrize("name", ["picard", "anderson-1", "anderson-2", "broyden"])
def test_with_a_tolerance_it_stops_early_and_says_when(name: str) -> None:
    method, steps = METHODS[name]
    evaluations = []
    problem = InnerProblem(lambda z, x: (evaluations.append(1), LINEAR.f(z, x))[1], LINEAR.loss)
    solution = Joint(Plain(LINEAR.step()), method=method, max_steps=steps, tol=1e-4)(problem, LINEAR.start())
    assert solution.num_steps == len(evaluations) < steps
    assert bool((solution.residuals < 1e-4).all()) and bool(solution.feasible(1e-4).all())


def test_the_budget_is_the_number_of_evaluations() -> None:
    evaluations = []
    problem = InnerProblem(lambda z, x: (evaluations.append(1), LINEAR.f(z, x))[1], LINEAR.loss)
    assert Joint(max_steps=7)(problem, LINEAR.start()).num_steps == len(evaluations) == 7


@pytest.mark.parametrize(("max_steps", "tol"), [(0, 0.0), (-1, 0.0), (5, -1e-3)])
def test_a_budget_that_cannot_be_run_is_refused(max_steps: int, tol: float) -> None:
    with pytest.raises(ValueError, match="max_steps"):
        Joint(max_steps=max_steps, tol=tol)


@pytest.mark.parametrize("step", [None, Plain(LINEAR.step())], ids=["default", "plain"])
def test_a_solve_that_starts_at_its_solution_says_so_at_once(step: StepRule | None) -> None:
    solution = Joint(step, tol=1e-10)(LINEAR.problem(), LINEAR.solution())
    assert solution.num_steps == 1 and bool(solution.converged.all())
    assert worst_error(solution.v, LINEAR.solution()) < 1e-14


def test_a_problem_that_can_be_fitted_exactly_stops_early() -> None:
    """mu* = 0, where a residual relative to mu would be 0/0 until its last bit comes to rest, after 417 steps."""
    x = torch.randn(2, 3)
    reachable = (x @ LINEAR.drive.T + LINEAR.bias) @ LINEAR.resolvent.T
    linear = LinearQuadratic(LINEAR.weight, LINEAR.drive, LINEAR.bias, reachable, ridge=0.0)
    solution = Joint(Plain(linear.step()), max_steps=250, tol=1e-6)(linear.problem(), linear.start())
    torch.testing.assert_close(solution.v.x, x, rtol=0, atol=1e-7)
    assert solution.num_steps < 250


# --- constraint ------------------------------------------------------------------------------------------------------


@each_method
def test_every_iterate_is_projected(method: Method) -> None:
    ball, trace = L2Ball(0.2), Trace()
    start = Augmented.start(torch.full((4, 3), 5.0), 6)  # outside
    Joint(Plain(LINEAR.step(1.0)), method=method, max_steps=20)(LINEAR.problem(ball), start, (trace,))
    for snapshot in trace.snapshots:
        x = Augmented.unpack(snapshot.value, 6).x
        assert bool((x.norm(dim=1) <= 0.2 + 1e-12).all())


def test_the_update_that_a_method_mixes_is_projected_too() -> None:
    mixed: list[Tensor] = []

    class Spy(Picard):
        def step(self, v: Tensor, fv: Tensor, state: None) -> tuple[Tensor, None]:
            mixed.append(Augmented.unpack(fv, 6).x)
            return super().step(v, fv, state)

    Joint(Plain(LINEAR.step(1.0)), method=Spy(), max_steps=10)(LINEAR.problem(L2Ball(0.2)), LINEAR.start())
    assert all(float(x.norm(dim=1).max()) <= 0.2 + 1e-12 for x in mixed)
    assert float(mixed[-1].norm(dim=1).min()) > 0.19


@pytest.mark.parametrize(
    "solver",
    [Joint(Plain(ROUND.step(0.5)), max_steps=300), nested(steps=60, rule=Plain(ROUND.step(1.4)))],
    ids=["joint", "nested"],
)
def test_the_constrained_optimum_is_found(solver: InnerSolver) -> None:
    """x* on the sphere solves (H + nu I) x = b with nu >= 0 (a trust-region problem)."""
    radius = 0.5 * float(ROUND.solution().x.norm(dim=1).min())
    solution = solver(ROUND.problem(L2Ball(radius)), ROUND.start())
    x, slope = solution.v.x, ROUND.solution().x @ ROUND.hessian
    pull = slope - x @ ROUND.hessian  # minus the gradient of the reduced loss
    torch.testing.assert_close(x.norm(dim=1), torch.full((4,), radius), rtol=1e-10, atol=0)
    nu = (pull * x).sum(dim=1, keepdim=True) / radius**2
    assert bool((nu > 0).all())
    torch.testing.assert_close(pull, nu * x, rtol=0, atol=1e-8)
    assert bool((solution.residuals < 1e-8).all())


# --- samples are independent -----------------------------------------------------------------------------------------


@each_rule
@each_method
def test_a_sample_does_not_depend_on_its_batch_mates(method: Method, rule: StepRule) -> None:
    solver = Joint(rule, method=method, max_steps=15)
    together = solver(LINEAR.problem(), LINEAR.start()).v.pack()
    for i in range(4):
        alone = LINEAR.rows(slice(i, i + 1))
        row = solver(alone.problem(), alone.start()).v.pack()
        torch.testing.assert_close(together[i : i + 1], row, rtol=1e-7, atol=1e-9)


@each_method
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_nor_does_it_with_a_tolerance(method: Method, tol: float) -> None:
    """Batch mates that need longer do not move a sample that has stopped."""
    solver = Joint(Plain(LINEAR.step()), method=method, max_steps=800, tol=tol)
    together = solver(LINEAR.problem(), LINEAR.start())
    for i in range(4):
        alone = LINEAR.rows(slice(i, i + 1))
        row = solver(alone.problem(), alone.start())
        assert row.num_steps <= together.num_steps
        torch.testing.assert_close(together.v.pack()[i : i + 1], row.v.pack(), rtol=1e-7, atol=1e-9)


@each_rule
def test_nested_samples_are_independent_too(rule: StepRule) -> None:
    solver = nested(steps=8, rule=rule)
    together = solver(LINEAR.problem(), LINEAR.start()).v.pack()
    alone = LINEAR.rows(slice(2, 3))
    torch.testing.assert_close(together[2:3], solver(alone.problem(), alone.start()).v.pack(), rtol=1e-9, atol=1e-11)


def poisoned(bad: float, after: int = 0) -> InnerProblem:
    """The linear problem, whose sample 1 is ``bad`` from its evaluation ``after`` on."""
    calls = [0]

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        fz = LINEAR.f(z, x)
        row = torch.zeros_like(fz)
        row[1] = bad if calls[0] > after else 0.0
        return fz + row

    return InnerProblem(f, LINEAR.loss)


@each_method
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("after", [0, 5])
def test_a_sample_that_is_not_finite_is_flagged_and_disturbs_nobody(method: Method, bad: float, after: int) -> None:
    solver = Joint(Plain(LINEAR.step()), method=method, max_steps=20)
    clean = solver(poisoned(0.0), LINEAR.start())
    solution = solver(poisoned(bad, after), LINEAR.start())
    assert solution.finite.tolist() == [True, False, True, True]
    others = torch.tensor([0, 2, 3])
    assert torch.equal(solution.v.pack()[others], clean.v.pack()[others])
    assert torch.equal(solution.cost[others], clean.cost[others])
    assert bool(torch.isfinite(solution.v.pack()).all())  # the sample fell back to its last finite iterate


def test_a_sample_that_fails_late_returns_its_last_finite_iterate() -> None:
    short = Joint(Plain(LINEAR.step()), max_steps=5)(poisoned(0.0), LINEAR.start())
    failed = Joint(Plain(LINEAR.step()), max_steps=20)(poisoned(math.nan, after=5), LINEAR.start())
    assert torch.equal(failed.v.pack()[1], short.v.pack()[1])


def test_nested_flags_it_too() -> None:
    solver = nested(steps=6)
    clean = solver(poisoned(0.0), LINEAR.start())
    solution = solver(poisoned(math.nan), LINEAR.start())
    assert solution.finite.tolist() == [True, False, True, True]
    others = torch.tensor([0, 2, 3])
    assert torch.equal(solution.v.pack()[others], clean.v.pack()[others])


@each_method
def test_a_singular_sample_disturbs_nobody(method: Method) -> None:
    """Sample 1 has f = 0 and a loss without gradient: all its differences vanish."""
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0]).unsqueeze(1)
    problem = InnerProblem(lambda z, x: keep * LINEAR.f(z, x), lambda z, x: keep.squeeze(1) * LINEAR.loss(z, x))
    solver = Joint(Plain(LINEAR.step()), method=method, max_steps=20)
    clean = solver(LINEAR.problem(), LINEAR.start())
    solution = solver(problem, LINEAR.start())
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(solution.v.pack()[others], clean.v.pack()[others], rtol=1e-12, atol=1e-12)
    assert bool(solution.finite.all())
    assert not solution.v.pack()[1].any()


# --- no host synchronisation, no graph, no growth --------------------------------------------------------------------


@each_rule
@each_method
def test_a_fixed_budget_never_waits_for_the_device(method: Method, rule: StepRule) -> None:
    solver = Joint(rule, method=method, max_steps=6)
    problem, start = LINEAR.problem(L2Ball(0.5)), LINEAR.start()
    with NoSynchronisation():
        solver(problem, start)


@pytest.mark.parametrize("inner", [Picard(), Anderson(2, memory=3), Anderson(1, memory=3), Broyden(memory=3)])
def test_nor_does_nested(inner: Method) -> None:
    solver = Nested(Normalised(0.1), FixedPoint(inner, 5), FixedPoint(inner, 5), max_steps=3)
    problem, start = LINEAR.problem(L2Ball(0.5)), LINEAR.start()
    with NoSynchronisation():
        solver(problem, start)


def test_a_tolerance_does_wait() -> None:
    """The mode notices what it is there to notice."""
    with pytest.raises(AssertionError, match="wait"), NoSynchronisation():
        Joint(max_steps=3, tol=1e-3)(LINEAR.problem(), LINEAR.start())


@pytest.mark.parametrize(
    ("method", "selection"),
    [(Picard(), LowestCost()), (Anderson(2, memory=8), Last()), (Anderson(1, memory=8), LowestResidual()), (Broyden(8), Last())],
)
def test_memory_does_not_grow_with_the_number_of_steps(method: Method, selection: Selection) -> None:
    sizes: list[int] = []
    problem, start = LINEAR.problem(), LINEAR.start()
    solver = Joint(Adam(0.01), method=method, max_steps=40, selection=selection)
    with LiveBytes() as live:
        solver(problem, start, (lambda now: sizes.append(live.total()),))
    assert sizes[12] == max(sizes[10:]) and sizes[12] > start.pack().nbytes


def test_the_answer_has_no_graph_and_the_start_is_left_alone() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(2, net.outputs)))
    start = Augmented.start(torch.randn(2, 3, requires_grad=True), 5)
    before = start.clone()
    for solver in (Joint(max_steps=5), nested(steps=2)):
        solution = solver(problem, start)
        assert not any(t.requires_grad for t in (*vars(solution.v).values(), solution.cost, solution.residuals))
        assert torch.equal(start.pack(), before.pack())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_solver_can_be_used_again() -> None:
    """No state is left behind by a solve."""
    for method, _ in METHODS.values():
        solver = Joint(Adam(0.05), method=method, max_steps=12)
        first = solver(LINEAR.problem(), LINEAR.start()).v.pack()
        assert torch.equal(solver(LINEAR.problem(), LINEAR.start()).v.pack(), first)


def test_observers_see_every_iterate_that_is_evaluated() -> None:
    trace = Trace()
    solution = Joint(Plain(LINEAR.step()), max_steps=9)(LINEAR.problem(), LINEAR.start(), (trace,))
    assert [snapshot.step for snapshot in trace.snapshots] == list(range(9))
    assert torch.equal(trace.snapshots[-1].value, solution.v.pack())


# --- the default rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Normalised(0.05, Cosine()), Adam(0.05), SelfScaled()], ids=["normalised", "adam", "default"])
@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_factor_on_the_loss_does_not_change_the_path_of_x(rule: StepRule, factor: float) -> None:
    paths = []
    for scale in (1.0, factor):
        linear, trace = LinearQuadratic(LINEAR.weight, LINEAR.drive, LINEAR.bias, LINEAR.target, scale=scale), Trace()
        Joint(rule, max_steps=40)(linear.problem(), linear.start(), (trace,))
        paths.append(torch.stack([Augmented.unpack(now.value, 6).x for now in trace.snapshots]))
    assert paths[0][-1].abs().max() > 0.05  # it went somewhere
    torch.testing.assert_close(paths[1], paths[0], rtol=1e-8, atol=1e-8)


def test_the_path_under_the_plain_rule_does_change() -> None:
    linear = LinearQuadratic(LINEAR.weight, LINEAR.drive, LINEAR.bias, LINEAR.target, scale=10.0)
    one = Joint(Plain(0.01), max_steps=10)(LINEAR.problem(), LINEAR.start()).v.x
    ten = Joint(Plain(0.01), max_steps=10)(linear.problem(), linear.start()).v.x
    assert not torch.allclose(one, ten, rtol=0.1)


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_default_solves_at_any_scale_of_the_loss(scale: float, seed: int) -> None:
    linear = LinearQuadratic.random(seed=seed)
    linear = LinearQuadratic(linear.weight, linear.drive, linear.bias, linear.target, scale=scale)
    solution, exact = Joint(max_steps=200)(linear.problem(), linear.start()), linear.solution()
    excess = solution.cost / linear.loss(exact.z, exact.x) - 1
    assert float(solution.feasibility.max()) < 1e-2
    assert float(excess.abs().max()) < 5e-2
