"""The three outer gradients against central differences that solve again.

The references share no code with the package: Newton's method on Eq. 14 for (z, mu, x), plain iterations for z alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, DualReuse, FixedInput, FullKKT, InnerProblem, Joint, L2Ball
from jiio_lightning.core.outer import OuterGradient
from jiio_lightning.core.problem import unconstrained
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from tests.core.problems import TanhDEQ, directional, equilibrium_of, polish

PARAMETERS = ["cell", "injection", "head"]
EXACT = FixedPoint(Picard(), 120)
each_parameter = pytest.mark.parametrize("name", PARAMETERS)

SOLVED: dict[tuple[float | None, float, int], tuple[Augmented, Augmented]] = {}
"""What a case's solve found, so that each is solved once."""


class Case:
    """A solved inner problem and an outer loss of another kind."""

    def __init__(self, radius: float | None = None, sign: float = 1.0, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.net, self.radius = TanhDEQ(seed=seed), radius
        target, self.other = torch.randn(3, self.net.outputs), torch.randn(3, self.net.outputs)
        project = unconstrained if radius is None else L2Ball(radius)
        self.problem = InnerProblem(self.net.f, self.net.fit(target, sign=sign), project)
        start = Augmented.start(0.01 * torch.randn(3, self.net.width), self.net.hidden)
        key = (radius, sign, seed)
        if key not in SOLVED:
            self.rough = Joint(Plain(0.1), max_steps=200)(self.problem, start).v
            SOLVED[key] = self.rough, self.solve()
        self.rough, self.v = SOLVED[key]

    def solve(self) -> Augmented:
        """(z, mu, x) at the present weights, to the last bit."""
        return polish(self.problem, self.rough, self.radius)

    def outer(self, z: Tensor, x: Tensor) -> Tensor:
        """Neither the inner loss nor quadratic, with x and the head in it."""
        return (z @ self.net.head.T - self.other).sin().sum(dim=1) + 0.3 * x.cos().sum(dim=1)

    def along(self, method: OuterGradient, name: str, direction: Tensor, v: Augmented | None = None) -> Tensor:
        """The surrogate's derivative along a direction of one parameter."""
        surrogate = method.surrogate(self.problem, self.outer, self.v if v is None else v).value
        return (torch.autograd.grad(surrogate.sum(), getattr(self.net, name))[0] * direction).sum()

    def difference(self, value: Callable[[Augmented], Tensor], name: str, direction: Tensor) -> Tensor:
        """Central difference of a value of the solution, (z, mu, x) re-solved."""
        return directional(lambda: value(self.solve()).sum().detach(), getattr(self.net, name), direction)

    def direction(self, name: str) -> Tensor:
        return torch.randn_like(getattr(self.net, name))


# --- Eq. 19: the dual again ------------------------------------------------------------------------------------------


@each_parameter
@pytest.mark.parametrize("refine", [None, EXACT], ids=["as it is", "refined"])
@pytest.mark.parametrize(("radius", "sign"), [(None, 1.0), (0.4, 1.0), (0.6, -1.0)], ids=["free", "ball", "attack"])
def test_dual_reuse_is_the_gradient_of_the_re_solved_inner_loss(
    name: str, refine: FixedPoint | None, radius: float | None, sign: float
) -> None:
    case = Case(radius, sign)
    direction = case.direction(name)
    ours = case.along(DualReuse(sign=sign, refine=refine), name, direction)
    theirs = sign * case.difference(lambda v: case.problem.loss(v.z, v.x), name, direction)
    assert theirs.abs() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@each_parameter
def test_refinement_brings_mu_to_the_fixed_z_and_x(name: str) -> None:
    """Off convergence the refined gradient is that of the loss with x frozen at the iterate."""
    case = Case()
    direction = case.direction(name)
    x = case.v.x + 0.3
    rough = Augmented(equilibrium_of(case.problem, x, case.net.hidden), torch.randn_like(case.v.mu), x)

    def frozen() -> Tensor:
        return case.problem.loss(equilibrium_of(case.problem, x, case.net.hidden), x).sum().detach()

    theirs = directional(frozen, getattr(case.net, name), direction)
    refined = case.along(DualReuse(refine=EXACT), name, direction, rough)
    torch.testing.assert_close(refined, theirs, rtol=1e-6, atol=1e-9)
    plain = case.along(DualReuse(), name, direction, rough)
    assert torch.allclose(plain, theirs, rtol=0.05) == (name == "head")  # the head's gradient does not need mu


def test_refinement_reports_its_residual_and_plain_reuse_has_none() -> None:
    case = Case()
    assert DualReuse().surrogate(case.problem, case.outer, case.v).residual is None
    rough = replace(case.v, mu=torch.zeros_like(case.v.mu))
    short = DualReuse(refine=FixedPoint(Picard(), 2)).surrogate(case.problem, case.outer, rough).residual
    long = DualReuse(refine=EXACT).surrogate(case.problem, case.outer, rough).residual
    assert short is not None and long is not None
    assert short.shape == (3,) and float(short.min()) > 1e-3 and float(long.max()) < 1e-12


def test_refinement_starts_from_the_mu_that_it_is_given() -> None:
    case = Case()
    short = DualReuse(refine=FixedPoint(Picard(), 2)).surrogate(case.problem, case.outer, case.v).residual
    assert short is not None and float(short.max()) < 1e-11


# --- Eq. 9: another loss, x frozen -----------------------------------------------------------------------------------


@each_parameter
@pytest.mark.parametrize("radius", [None, 0.4], ids=["free", "ball"])
def test_fixed_input_is_the_gradient_with_z_re_solved_and_x_frozen(name: str, radius: float | None) -> None:
    case = Case(radius)
    direction = case.direction(name)

    def frozen() -> Tensor:
        return case.outer(equilibrium_of(case.problem, case.v.x, case.net.hidden), case.v.x).sum().detach()

    ours = case.along(FixedInput(EXACT), name, direction)
    theirs = directional(frozen, getattr(case.net, name), direction)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    full = case.difference(lambda v: case.outer(v.z, v.x), name, direction)
    assert not torch.allclose(ours, full, rtol=0.01)  # and it is not the full one


def test_fixed_input_says_when_its_adjoint_did_not_converge() -> None:
    case = Case()
    short = FixedInput(FixedPoint(Picard(), 2)).surrogate(case.problem, case.outer, case.v).residual
    assert short is not None and float(short.min()) > 1e-3


# --- Eq. 16-17: another loss, x re-solved -------------------------------------------------------------------------


@each_parameter
@pytest.mark.parametrize(("radius", "sign"), [(None, 1.0), (0.4, 1.0), (0.6, -1.0)], ids=["free", "ball", "attack"])
def test_full_kkt_is_the_gradient_with_everything_re_solved(name: str, radius: float | None, sign: float) -> None:
    case = Case(radius, sign)
    direction = case.direction(name)
    ours = case.along(FullKKT(tol=1e-12), name, direction)
    theirs = case.difference(lambda v: case.outer(v.z, v.x), name, direction)
    assert theirs.abs() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-5 if radius is None else 1e-4, atol=1e-9)


@each_parameter
def test_with_the_inner_loss_all_three_agree(name: str) -> None:
    """At an interior optimum the path of x does not matter (envelope theorem)."""
    case = Case()
    case.outer = case.problem.loss  # type: ignore[method-assign]
    direction = case.direction(name)
    reuse = case.along(DualReuse(), name, direction)
    for method in (FixedInput(EXACT), FullKKT(tol=1e-13)):
        torch.testing.assert_close(case.along(method, name, direction), reuse, rtol=1e-8, atol=1e-10)


def test_full_kkt_says_when_its_linear_solve_did_not_converge() -> None:
    case = Case()
    short = FullKKT(memory=3, restarts=1).surrogate(case.problem, case.outer, case.v).residual
    enough = FullKKT(memory=13, restarts=4, tol=1e-12).surrogate(case.problem, case.outer, case.v).residual
    assert short is not None and enough is not None
    assert float(short.min()) > 1e-3 and float(enough.max()) < 1e-9


# --- what holds for all of them --------------------------------------------------------------------------------------

METHODS = [DualReuse(), DualReuse(refine=EXACT), FixedInput(EXACT), FullKKT(tol=1e-12)]
each_method = pytest.mark.parametrize("method", METHODS, ids=["reuse", "refined", "fixed", "full"])


@each_parameter
def test_the_whole_path_from_joint_to_the_gradient(name: str) -> None:
    """Not from a polished solution, from what the solver returns."""
    case = Case()
    v = Joint(Plain(0.1), max_steps=300)(case.problem, case.rough).v
    direction = case.direction(name)
    for method, value in ((DualReuse(), case.problem.loss), (FullKKT(tol=1e-12), case.outer)):
        theirs = case.difference(lambda v, value=value: value(v.z, v.x), name, direction)
        torch.testing.assert_close(case.along(method, name, direction, v), theirs, rtol=1e-5, atol=1e-8)


@each_method
def test_the_surrogate_sends_no_gradient_to_the_solution(method: OuterGradient) -> None:
    case = Case()
    v = Augmented(*(block.clone().requires_grad_() for block in (case.v.z, case.v.mu, case.v.x)))
    surrogate = method.surrogate(case.problem, case.outer, v).value
    assert surrogate.shape == (3,)
    surrogate.sum().backward()
    assert all(block.grad is None for block in (v.z, v.mu, v.x))
    assert all(getattr(case.net, name).grad is not None for name in PARAMETERS)


@each_method
def test_samples_add_up(method: OuterGradient) -> None:
    """The gradient of the batch is the sum of the samples' gradients."""
    case = Case()
    values = method.surrogate(case.problem, case.outer, case.v).value
    rows = [torch.autograd.grad(value, case.net.cell, retain_graph=True)[0] for value in values]
    total = torch.autograd.grad(values.sum(), case.net.cell)[0]
    torch.testing.assert_close(sum(rows), total, rtol=1e-9, atol=1e-11)
    target = Case(seed=0)
    alone = InnerProblem(target.net.f, lambda z, x: target.problem.loss(z.expand(3, -1), x.expand(3, -1))[1:2])
    v = Augmented(case.v.z[1:2], case.v.mu[1:2], case.v.x[1:2])
    value = method.surrogate(alone, lambda z, x: target.outer(z.expand(3, -1), x.expand(3, -1))[1:2], v).value
    torch.testing.assert_close(torch.autograd.grad(value.sum(), target.net.cell)[0], rows[1], rtol=1e-7, atol=1e-9)


@each_method
def test_a_sample_that_is_not_finite_leaves_the_others_alone(method: OuterGradient) -> None:
    """No error, and their values are the same. (The sum over the batch is the caller's: leave the bad sample out first.)"""
    case = Case()
    clean = method.surrogate(case.problem, case.outer, case.v).value
    spoilt = replace(case.v, z=case.v.z.index_fill(0, torch.tensor([1]), torch.nan))
    values = method.surrogate(case.problem, case.outer, spoilt).value
    assert torch.isfinite(values).tolist() == [True, False, True]
    torch.testing.assert_close(values[[0, 2]], clean[[0, 2]], rtol=1e-9, atol=1e-11)


# --- the proximal problem ----------------------------------------------------------------------------------------------


@each_parameter
def test_a_ridge_goes_from_the_full_gradient_to_the_one_at_fixed_x(name: str) -> None:
    """Against differences that solve the proximal problem again, and both ends of the scale."""
    case = Case()
    direction = case.direction(name)
    full, fixed = (case.along(method, name, direction) for method in (FullKKT(tol=1e-12), FixedInput(EXACT)))
    assert (full - fixed).abs() > 1e-3 * full.abs()
    none, endless = (case.along(FullKKT(tol=1e-12, ridge=ridge), name, direction) for ridge in (0.0, 1e7))
    torch.testing.assert_close(none, full, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(endless, fixed, rtol=1e-5, atol=1e-7)
    plain, centre = case.problem, case.v.x
    case.problem = replace(plain, loss=lambda z, x: plain.loss(z, x) + 0.35 * (x - centre).square().sum(dim=1))
    theirs = case.difference(lambda v: case.outer(v.z, v.x), name, direction)
    case.problem = plain
    torch.testing.assert_close(case.along(FullKKT(tol=1e-12, ridge=0.7), name, direction), theirs, rtol=1e-5, atol=1e-8)


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(ValueError, match="ridge >= 0, got -1"):
        FullKKT(ridge=-1.0)
