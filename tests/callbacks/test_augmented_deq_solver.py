"""The injected solver: budgets by mode, metrics, the warning and the refusal."""

from __future__ import annotations

import warnings

import pytest
import torch
from pytorch_lightning import LightningModule

from jiio_lightning.callbacks import AugmentedDEQSolver
from jiio_lightning.core import Augmented, Joint
from jiio_lightning.core.inner import InnerSolution, SolveError, diagnose
from tests.tasks.test_generation import batch, inject, task


def solution(residuals: list[list[float]], cost: list[float]) -> InnerSolution:
    rows = torch.tensor(residuals)
    finite = torch.isfinite(rows).all(dim=1)
    return InnerSolution(Augmented.start(torch.zeros(len(rows), 2), 3), rows, torch.tensor(cost), 7, finite)


def callback() -> AugmentedDEQSolver:
    return AugmentedDEQSolver(Joint(max_steps=3), Joint(max_steps=5))


def test_the_budget_follows_the_mode():
    model, solver = task(), callback()
    solver.setup(None, model, "fit")
    assert model.injected is solver
    assert solver.budget(model.train()).max_steps == 3 and solver.budget(model.eval()).max_steps == 5


def test_a_module_without_an_inner_problem_needs_no_solver():
    plain = LightningModule()
    AugmentedDEQSolver().setup(None, plain, "fit")
    callback().setup(None, plain, "fit")
    assert not hasattr(plain, "solver")


@pytest.mark.parametrize("given", [{}, {"train": Joint()}, {"test": Joint()}])
def test_a_task_needs_both_solvers(given):
    with pytest.raises(ValueError, match="There is no inner solver.*--solver PATH"):
        AugmentedDEQSolver(**given).setup(None, task(), "fit")


def test_the_metrics_are_medians_and_shares():
    rows = [[0.001, 0.2, 0.2], [0.05, 0.3, 0.4], [0.5, 0.5, 0.6]]
    metrics = {name: float(value) for name, value in callback().statistics(solution(rows, [1.0, 2.0, 6.0])).items()}
    wanted = {
        "cost": 3.0,
        "residual_z": 0.05,
        "residual_mu": 0.3,
        "residual_x": 0.4,
        "feasible": 1 / 3,  # feasible_tol is 0.01, trust_tol 0.1
        "finite": 1.0,
        "trusted": 0.0,
        "steps": 7.0,
    }
    assert metrics == pytest.approx(wanted)


def test_it_warns_once_with_the_diagnosis():
    solver, bad = callback(), solution([[0.3, 0.1, 0.5]] * 3, [1.0] * 3)
    with pytest.warns(UserWarning) as caught:
        solver.check(bad)
    assert str(caught[0].message) == diagnose(bad) and "step.size" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver.check(bad)
        callback().check(solution([[0.003, 0.05, 0.5]] * 3, [1.0] * 3))


def test_it_warns_once_that_a_step_trains_on_the_penalty_alone():
    solver, drifted = callback(), solution([[0.003, 0.5, 0.5]] * 3, [1.0] * 3)
    solver._warned = True  # the diagnosis of an earlier step
    with pytest.warns(UserWarning, match="no sample.*trust_tol=0.1.*penalty alone.*jacobian.coefficient"):
        solver.check(drifted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver.check(drifted)
        one_good = callback()
        one_good._warned = True
        one_good.check(solution([[0.003, 0.5, 0.5]] * 2 + [[0.003, 0.05, 0.5]], [1.0] * 3))


def test_a_sample_that_fell_back_is_not_refused():
    """It diverged, but its answer is an iterate with a finite cost."""
    fallen = solution([[0.003, 0.1, 0.5], [0.003, 0.1, 0.5]], [1.0, 1.0])
    fallen = InnerSolution(fallen.v, fallen.residuals, fallen.cost, 7, torch.tensor([True, False]))
    with pytest.warns(UserWarning, match="1 of 2 samples"):
        callback().check(fallen)


def test_one_sample_without_an_answer_would_spoil_the_weights():
    model, given = task(), batch()
    inject(model)
    given.image[1, 0, 0, 0] = float("nan")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SolveError, match="1 of 4 samples met a value that is not finite.*data or the weights hold NaN"):
        model.training_step(given, 0)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_resolve_gives_the_equilibrium():
    model, given = task(), batch()
    solver, problem = inject(model), model.problem(given)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    z, residual = solver.resolve(problem, x, model.net.hidden)
    gap = (problem.f(z, x) - z).norm(dim=1) / problem.f(z, x).norm(dim=1)
    assert residual.max() < 2e-5 and gap.max() < 1e-4 and not z.requires_grad
