from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, InnerSolution, Joint, L2Ball, SolveError
from jiio_lightning.core.inner import MuResidual, XResidual, diagnose
from jiio_lightning.core.steps import Plain
from tests.core.problems import LinearQuadratic


def solved(z: list[float], x: list[float], finite: list[bool] | None = None) -> InnerSolution:
    batch = len(z)
    residuals = torch.stack([torch.tensor(z), torch.zeros(batch), torch.tensor(x)], dim=1)
    flags = torch.ones(batch, dtype=torch.bool) if finite is None else torch.tensor(finite)
    v = Augmented(torch.zeros(batch, 2), torch.zeros(batch, 2), torch.zeros(batch, 1))
    return InnerSolution(v, residuals, torch.zeros(batch), 40, flags)


def test_feasible_samples_are_finite_and_within_the_tolerance() -> None:
    solution = solved([1e-3, 1e-1, 1e-3], [0.0, 0.0, 0.0], [True, True, False])
    assert solution.feasible().tolist() == [True, False, False]
    assert solution.feasible(0.5).tolist() == [True, True, False]


def test_a_good_solve_is_returned_as_it_is() -> None:
    solution = solved([1e-3, 1e-3, 0.5], [0.1, 0.1, 0.1])
    assert diagnose(solution) is None and solution.require() is solution


def test_each_failure_says_what_why_and_which_key() -> None:
    with pytest.raises(SolveError, match=r"1 of 3 samples .* not finite.*step\.size"):
        solved([1e-3] * 3, [0.0] * 3, [True, False, True]).require()
    with pytest.raises(SolveError, match=r"median residual of z 5\.0e-01.*x still moves.*step\.size"):
        solved([0.5] * 3, [0.5] * 3).require()
    with pytest.raises(SolveError, match=r"x has stopped but z has not.*jacobian\.coefficient"):
        solved([0.5] * 3, [1e-4] * 3).require()


def test_a_diverging_solve_is_diagnosed() -> None:
    linear = LinearQuadratic.random()
    solution = Joint(Plain(1e6), max_steps=200)(linear.problem(), linear.start())
    with pytest.raises(SolveError, match="not finite"):
        solution.require()


def test_the_residual_of_x_has_no_units() -> None:
    problem = InnerProblem(lambda z, x: z, lambda z, x: x.sum(dim=1))
    x, gradients = torch.zeros(2, 3), [torch.randn(2, 3) for _ in range(4)]

    def history(factor: float) -> Tensor:
        measure = XResidual()
        return torch.stack([measure(problem, x, factor * g) for g in gradients])

    assert torch.equal(history(1.0)[0], torch.ones(2))
    torch.testing.assert_close(history(1e6), history(1.0), rtol=1e-12, atol=0)
    norms = torch.stack([g.norm(dim=1) for g in gradients])
    torch.testing.assert_close(history(1.0), norms / norms.cummax(dim=0).values)


def test_the_residual_of_x_is_zero_at_a_constrained_optimum() -> None:
    """The gradient is not zero there: it points out of the ball."""
    problem = InnerProblem(lambda z, x: z, lambda z, x: x.sum(dim=1), L2Ball(1.0))
    measure, gradient = XResidual(), -torch.tensor([[3.0, 4.0]])
    assert float(measure(problem, torch.zeros(1, 2), gradient)) == 1.0
    assert float(measure(problem, torch.tensor([[0.6, 0.8]]), gradient)) < 1e-15


def test_a_nan_does_not_spoil_the_scale_of_later_residuals() -> None:
    problem = InnerProblem(lambda z, x: z, lambda z, x: x.sum(dim=1))
    measure, x = XResidual(), torch.zeros(1, 1)
    assert torch.isnan(measure(problem, x, torch.tensor([[torch.nan]]))).all()
    assert float(measure(problem, x, torch.tensor([[2.0]]))) == 1.0


def test_the_residual_of_mu_is_relative_to_mu() -> None:
    measure, mu = MuResidual(), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    assert measure(mu, torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == pytest.approx([0.0, 0.5])
    scaled = MuResidual()
    torch.testing.assert_close(scaled(1e6 * mu, 1e6 * torch.ones(2, 2)), MuResidual()(mu, torch.ones(2, 2)))


def test_a_mu_that_vanishes_is_judged_by_the_largest_so_far() -> None:
    measure = MuResidual()
    measure(torch.zeros(1, 2), torch.tensor([[6.0, 8.0]]))  # scale 10
    assert measure(torch.zeros(1, 2), torch.tensor([[0.06, 0.08]])).item() == pytest.approx(1.0), "a hundredth: still relative"
    assert measure(torch.zeros(1, 2), torch.tensor([[0.6e-6, 0.8e-6]])).item() == pytest.approx(1e-4)
    assert MuResidual()(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0.0
