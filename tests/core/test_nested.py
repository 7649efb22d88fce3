from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, L2Ball, Nested
from jiio_lightning.core.solvers import FixedPoint, Last, Picard, Trace
from jiio_lightning.core.steps import Adam, Normalised, Plain
from tests.core.problems import LinearQuadratic, TanhDEQ, equilibrium_of

EXACT = FixedPoint(Picard(), 60)


def example(sign: float = 1.0) -> tuple[TanhDEQ, InnerProblem, Augmented]:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(3, net.outputs), sign=sign))
    return net, problem, Augmented.start(torch.randn(3, net.width), net.hidden)


def reduced_gradient(net: TanhDEQ, problem: InnerProblem, x: Tensor) -> Tensor:
    """Gradient of l(z*(x), x) by differentiating 150 unrolled iterations."""
    x = x.detach().clone().requires_grad_()
    z = torch.zeros(x.shape[0], net.hidden)
    for _ in range(150):
        z = problem.f(z, x)
    return torch.autograd.grad(problem.loss(z, x).sum(), x)[0]


def test_the_steps_are_gradient_descent_on_the_reduced_loss() -> None:
    """Eq. 6 with the gradient of Eq. 7."""
    net, problem, start = example()
    trace, x = Trace(), start.x
    Nested(Plain(0.1), EXACT, EXACT, max_steps=4)(problem, start, (trace,))
    for snapshot in trace.snapshots:
        v = Augmented.unpack(snapshot.value, net.hidden)
        torch.testing.assert_close(v.x, x, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(v.z, equilibrium_of(problem, x, net.hidden), rtol=1e-9, atol=1e-11)
        x = x - 0.1 * reduced_gradient(net, problem, x)


def test_with_adam_it_is_torch_adam_on_the_reduced_loss() -> None:
    net, problem, start = example()
    trace = Trace()
    Nested(Adam(0.05), EXACT, EXACT, max_steps=6)(problem, start, (trace,))
    x = start.x.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05, eps=0.0)
    for snapshot in trace.snapshots:
        torch.testing.assert_close(Augmented.unpack(snapshot.value, net.hidden).x, x.detach(), rtol=1e-8, atol=1e-10)
        x.grad = reduced_gradient(net, problem, x)
        optimiser.step()


def test_with_normalised_steps_and_a_ball_it_is_pgd() -> None:
    net, problem, start = example(sign=-1.0)
    problem = InnerProblem(problem.f, problem.loss, L2Ball(0.7))
    start, trace = Augmented.start(torch.zeros(3, net.width), net.hidden), Trace()
    Nested(Normalised(0.3), EXACT, EXACT, max_steps=6)(problem, start, (trace,))
    x = start.x
    for snapshot in trace.snapshots:
        torch.testing.assert_close(Augmented.unpack(snapshot.value, net.hidden).x, x, rtol=1e-9, atol=1e-11)
        gradient = reduced_gradient(net, problem, x)
        x = x - 0.3 * gradient / gradient.norm(dim=1, keepdim=True)
        x = x * (0.7 / x.norm(dim=1, keepdim=True)).clamp_max(1.0)
    assert float(x.norm(dim=1).max()) > 0.69  # the ball was met


def test_it_returns_the_cheapest_iterate_unless_told() -> None:
    linear = LinearQuadratic.random()
    too_long = Plain(linear.step(2.3))  # diverges slowly along the stiff direction
    best = Nested(too_long, EXACT, EXACT, max_steps=12)(linear.problem(), linear.start())
    last = Nested(too_long, EXACT, EXACT, max_steps=12, selection=Last())(linear.problem(), linear.start())
    assert bool((best.cost < last.cost).all())
    torch.testing.assert_close(best.cost, linear.loss(best.v.z, best.v.x))


def test_a_warm_start_leaves_shorter_solves_nearer_to_the_equilibrium() -> None:
    linear, few = LinearQuadratic.random(), FixedPoint(Picard(), 4)
    cold = Nested(Plain(linear.step()), few, few, max_steps=20)(linear.problem(), linear.start())
    warm = Nested(Plain(linear.step()), few, few, max_steps=20, warm=True)(linear.problem(), linear.start())
    assert bool((warm.residuals[:, :2] < 0.1 * cold.residuals[:, :2]).all())


def test_a_cold_start_is_the_given_one_each_time() -> None:
    linear, starts = LinearQuadratic.random(), []

    class Spy(FixedPoint):
        def __call__(self, function, v0):  # noqa: ANN001, ANN204
            starts.append(v0.clone())
            return super().__call__(function, v0)

    v0 = linear.start()
    v0 = Augmented(torch.full_like(v0.z, 0.5), v0.mu, v0.x)
    Nested(Plain(0.01), Spy(Picard(), 5), FixedPoint(Picard(), 5), max_steps=3)(linear.problem(), v0)
    assert len(starts) == 3 and all(torch.equal(z, v0.z) for z in starts)


def test_the_residuals_are_those_of_the_iterate() -> None:
    net, problem, start = example()
    solution = Nested(Plain(0.1), FixedPoint(Picard(), 3), FixedPoint(Picard(), 3), max_steps=3)(problem, start)
    gradient, v = problem.gradients(solution.v), solution.v
    torch.testing.assert_close(solution.feasibility, gradient.mu.norm(dim=1) / (v.z + gradient.mu).norm(dim=1))
    torch.testing.assert_close(solution.residuals[:, 1], gradient.z.norm(dim=1) / (v.mu + gradient.z).norm(dim=1))
    assert float(solution.feasibility.min()) > 1e-3  # three steps are too few, and it says so


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="max_steps"):
        Nested(Plain(0.1), EXACT, EXACT, max_steps=0)


def test_a_sample_that_failed_stays_where_it_is() -> None:
    """Its cost is NaN where x is above 1/2, though its gradient still points on; the other one goes its way."""
    rows = torch.tensor([1.0, torch.nan])

    def loss(z: Tensor, x: Tensor) -> Tensor:
        return (z - 5).square().sum(dim=1) + torch.where(x[:, 0] > 0.5, 0 * rows, 0.0)

    problem, trace = InnerProblem(lambda z, x: z / 2 + x, loss), Trace()
    solution = Nested(Plain(0.02), EXACT, EXACT, max_steps=6)(problem, Augmented.start(torch.zeros(2, 1), hidden=1), (trace,))
    x = torch.stack([Augmented.unpack(now.value, 1).x[:, 0] for now in trace.snapshots])
    fails = int((x[:, 1] > 0.5).int().argmax())
    assert 0 < fails < 5 and bool((x[fails:, 1] == x[fails, 1]).all()) and bool((x[1:, 0] > x[:-1, 0]).all())
    assert solution.finite.tolist() == [True, False] and solution.v.x[1] == x[fails - 1, 1], "the last iterate with a cost"
