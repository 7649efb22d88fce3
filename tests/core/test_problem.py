from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, Joint
from tests.core.problems import LinearQuadratic, TanhDEQ, explicit_gradients


def example() -> tuple[InnerProblem, Augmented]:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(4, net.outputs)))
    return problem, Augmented(torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 3))


def assert_same(a: Augmented, b: Augmented, tol: float = 1e-12) -> None:
    for name in ("z", "mu", "x"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_are_eq_14_with_explicit_jacobians() -> None:
    problem, v = example()
    assert_same(problem.gradients(v), explicit_gradients(problem, v))


def test_gradients_are_those_of_the_lagrangian() -> None:
    problem, v = example()
    leaf = Augmented(*(block.clone().requires_grad_() for block in (v.z, v.mu, v.x)))
    rows = torch.autograd.grad(problem.lagrangian(leaf).sum(), (leaf.z, leaf.mu, leaf.x))
    assert_same(problem.gradients(v), Augmented(*rows))


def test_lagrangian_is_the_loss_where_z_is_an_equilibrium() -> None:
    linear = LinearQuadratic.random()
    v, problem = linear.solution(), linear.problem()
    torch.testing.assert_close(problem.lagrangian(v), problem.loss(v.z, v.x), rtol=1e-12, atol=1e-12)
    away = Augmented(v.z + 1.0, v.mu, v.x)
    assert not torch.allclose(problem.lagrangian(away), problem.loss(away.z, away.x))


def test_evaluate_gives_the_loss_of_each_sample_and_keeps_no_graph() -> None:
    problem, v = example()
    at = problem.evaluate(v)
    torch.testing.assert_close(at.loss, problem.loss(v.z, v.x).detach(), rtol=0, atol=0)
    assert not any(t.requires_grad for t in (at.loss, at.gradient.z, at.gradient.mu, at.gradient.x))


def test_evaluate_calls_f_and_the_loss_once_and_leaves_no_gradient_on_the_weights() -> None:
    net, calls = TanhDEQ(), []
    loss = net.fit(torch.randn(2, net.outputs))
    problem = InnerProblem(lambda z, x: (calls.append("f"), net.f(z, x))[1], lambda z, x: (calls.append("loss"), loss(z, x))[1])
    problem.evaluate(Augmented(torch.randn(2, 5), torch.randn(2, 5), torch.randn(2, 3)))
    assert sorted(calls) == ["f", "loss"]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_loss_that_does_not_see_x_has_the_gradient_of_f_alone_in_x() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, lambda z, x: z.square().sum(dim=1))
    v = Augmented(torch.randn(2, 5), torch.zeros(2, 5), torch.randn(2, 3))
    assert not problem.gradients(v).x.any()


def test_evaluate_works_under_no_grad_and_with_inference_tensors() -> None:
    problem, v = example()
    expected = problem.gradients(v)
    with torch.no_grad():
        assert_same(problem.gradients(v), expected, tol=0.0)
    with torch.inference_mode():
        frozen = Augmented(v.z.clone(), v.mu.clone(), v.x.clone())
    assert_same(problem.gradients(frozen), expected, tol=0.0)


@pytest.mark.parametrize("solver", [Joint(), Joint(tol=1e-5)], ids=["budget", "tol"])
def test_what_does_not_fit_is_one_sentence_at_the_first_evaluation(solver: Joint) -> None:
    linear = LinearQuadratic.random()
    f, loss, start = linear.f, linear.loss, linear.start()
    x = start.x
    for wrong, problem, v0 in (
        (r"f has to return \(4, 6\)", InnerProblem(lambda z, x: f(z, x)[:, :3], loss), start),
        (r"one number a sample, has to return \(4,\)", InnerProblem(f, lambda z, x: loss(z, x).sum()), start),
        ("real numbers", InnerProblem(f, loss), Augmented.start(x.long(), 6)),
        ("at least one row", InnerProblem(f, loss), Augmented.start(x[:0], 6)),
        ("on the device of the net", InnerProblem(f, loss), Augmented(start.z, start.mu, x.to("meta"))),
        (r"needs an x \(B, d\)", InnerProblem(f, loss), Augmented(start.z, start.mu, x.unsqueeze(1))),
        (r"needs an x \(B, d\)", InnerProblem(f, loss), Augmented(start.z, start.mu, x[:, 0])),
        (r"needs an x \(B, d\)", InnerProblem(f, loss), Augmented(start.z, start.mu, x.sum())),
        (r"z \(3, 6\)", InnerProblem(f, loss), Augmented(start.z[:3], start.mu[:3], x)),
        (r"mu \(3, 6\)", InnerProblem(f, loss), Augmented(start.z, start.mu[:3], x)),
        (r"project has to return \(4, \d\)", InnerProblem(f, loss, lambda x: x[:, :1]), start),
    ):
        with pytest.raises(ValueError, match=wrong):
            solver(problem, v0)


def test_a_solve_under_inference_mode_is_one_sentence() -> None:
    linear = LinearQuadratic.random()
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode=False"):
        Joint()(InnerProblem(linear.f, linear.loss), linear.start())


def test_only_an_error_of_devices_is_called_one() -> None:
    def f(z: Tensor, x: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: compile with TORCH_USE_CUDA_DSA to enable device-side assertions")

    with pytest.raises(RuntimeError, match="assertions"):
        Joint()(InnerProblem(f, lambda z, x: z.sum(dim=1)), LinearQuadratic.random().start())
    net = torch.nn.Linear(6, 6, device="meta")
    with pytest.raises(ValueError, match="the net is not: move one of them"):
        Joint()(InnerProblem(lambda z, x: net(z), lambda z, x: z.sum(dim=1)), LinearQuadratic.random().start())
