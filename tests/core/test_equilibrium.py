from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from jiio_lightning.core.equilibrium import Linearisation, Neumann, adjoint, equilibrium
from jiio_lightning.core.solvers import Anderson, Broyden, FixedPoint, Last, Picard
from tests.core.problems import TanhDEQ, directional, equilibrium_of

EXACT = FixedPoint(Picard(), 120)
PARAMETERS = ["cell", "injection", "bias"]


def example() -> tuple[TanhDEQ, Tensor, Tensor]:
    net = TanhDEQ()
    return net, torch.randn(4, net.width), torch.zeros(4, net.hidden)


def value(z: Tensor) -> Tensor:
    return (z.sin() * torch.arange(1.0, z.shape[1] + 1)).sum()


def jacobian(net: TanhDEQ, z: Tensor, x: Tensor) -> Tensor:
    """J_z of each sample ``(B, n, n)``."""
    rows = [jacrev(lambda z, x=x[i : i + 1]: net.f(z.unsqueeze(0), x).squeeze(0))(z[i]) for i in range(len(z))]
    return torch.stack(rows).detach()


def unrolled_gradient(net: TanhDEQ, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    z = torch.zeros(len(x), net.hidden)
    for _ in range(120):
        z = net.f(z, x)
    return torch.autograd.grad(value(z), (x, *(getattr(net, name) for name in PARAMETERS)))


@pytest.mark.parametrize("solver", [EXACT, FixedPoint(Anderson(2, 6, 1e-14), 20), FixedPoint(Broyden(20), 30)])
def test_the_implicit_gradient_is_that_of_the_unrolled_iteration(solver: FixedPoint) -> None:
    net, x, z0 = example()
    leaf = x.clone().requires_grad_()
    z = equilibrium(net.f, leaf, z0, solver, solver)
    torch.testing.assert_close(z.detach(), equilibrium_of(_as_problem(net), x, net.hidden), rtol=1e-9, atol=1e-11)
    gradients = torch.autograd.grad(value(z), (leaf, *(getattr(net, name) for name in PARAMETERS)))
    for ours, theirs in zip(gradients, unrolled_gradient(net, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("forward", [None, FixedPoint(Picard(), 20)], ids=["one evaluation", "solved"])
def test_an_f_that_ends_in_a_short_type_has_a_gradient(forward: FixedPoint | None) -> None:
    net, x, z0 = example()
    z = equilibrium(lambda z, x: net.f(z, x).bfloat16(), x, z0, forward, FixedPoint(Anderson(), 20))
    assert z.dtype == z0.dtype
    gradient = torch.autograd.grad(value(z), net.bias)[0]
    exact = torch.autograd.grad(value(equilibrium(net.f, x, z0, forward, EXACT)), net.bias)[0]
    torch.testing.assert_close(gradient, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_implicit_gradient_is_a_central_difference(name: str) -> None:
    net, x, z0 = example()
    parameter = getattr(net, name)
    direction = torch.randn_like(parameter)
    gradient = torch.autograd.grad(value(equilibrium(net.f, x, z0, EXACT, EXACT)), parameter)[0]
    difference = directional(lambda: value(equilibrium_of(_as_problem(net), x, net.hidden)), parameter, direction)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("terms", [1, 2, 5, 40])
def test_picard_from_zero_is_the_neumann_series_truncated_at_the_budget(terms: int) -> None:
    net, x, z0 = example()
    z = equilibrium_of(_as_problem(net), x, net.hidden)
    cotangent, transposed = torch.randn_like(z), jacobian(net, z, x).mT
    expected, term = torch.zeros_like(z), cotangent
    for _ in range(terms):
        expected, term = expected + term, torch.einsum("bij,bj->bi", transposed, term)
    solver = FixedPoint(Picard(), terms + 1, selection=Last())  # it returns an evaluated iterate, and the first of them is 0
    torch.testing.assert_close(adjoint(Linearisation(net.f, z, x), cotangent, solver).value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_truncated_series_is_picards_value_for_fewer_products(order: int) -> None:
    net, x, z0 = example()
    z = equilibrium_of(_as_problem(net), x, net.hidden)
    at, cotangent = Linearisation(net.f, z, x), torch.randn_like(z)
    picard = adjoint(at, cotangent, FixedPoint(Picard(), order + 2, selection=Last())).value
    torch.testing.assert_close(Neumann(order)(at, cotangent), picard, rtol=1e-12, atol=1e-14)
    start = z.detach() + 0.1
    ours, theirs = (
        torch.autograd.grad(value(equilibrium(net.f, x, start, None, backward)), net.cell)[0]
        for backward in (Neumann(order), FixedPoint(Picard(), order + 2, selection=Last()))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_start_that_is_taken_as_it_is_costs_one_evaluation() -> None:
    net, x, _ = example()
    calls: list[Tensor] = []

    def f(z: Tensor, x: Tensor) -> Tensor:
        calls.append(z)
        return net.f(z, x)

    start = torch.randn(4, net.hidden)
    assert equilibrium(f, x, start, None, Neumann()).equal(net.f(start, x)) and len(calls) == 1


@pytest.mark.parametrize("mu0", [None, "random"])
def test_the_adjoint_is_the_explicit_solve(mu0: str | None) -> None:
    net, x, _ = example()
    z = equilibrium_of(_as_problem(net), x, net.hidden)
    cotangent = torch.randn_like(z)
    solution = adjoint(Linearisation(net.f, z, x), cotangent, EXACT, mu0=None if mu0 is None else torch.randn_like(z))
    system = torch.eye(net.hidden) - jacobian(net, z, x).mT
    torch.testing.assert_close(solution.value, torch.linalg.solve(system, cotangent), rtol=1e-10, atol=1e-12)
    assert bool(solution.within(1e-10).all()) and not solution.value.requires_grad


def test_the_linearisation_pulls_with_both_jacobians_as_often_as_asked() -> None:
    net, x, _ = example()
    z, mu = torch.randn(4, net.hidden), torch.randn(4, net.hidden)
    at = Linearisation(net.f, z, x)
    for _ in range(2):
        torch.testing.assert_close(at.pull_z(mu), torch.einsum("bij,bi->bj", jacobian(net, z, x), mu))
    expected = torch.autograd.functional.vjp(lambda x: net.f(z, x), x, mu)[1]
    torch.testing.assert_close(at.pull_x(mu), expected)


def test_the_forward_solve_keeps_no_graph() -> None:
    """The graph of the result is one evaluation of f, whatever the budget."""
    net, x, z0 = example()

    def nodes(budget: int) -> int:
        z = equilibrium(net.f, x, z0, FixedPoint(Picard(), budget), EXACT)
        seen, todo = set(), [z.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [parent for parent, _ in node.next_functions]
        return len(seen)

    assert nodes(3) == nodes(60)


def test_without_anything_to_differentiate_there_is_no_graph() -> None:
    net, x, z0 = example()
    net.requires_grad_(False)
    assert not equilibrium(net.f, x, z0, EXACT, EXACT).requires_grad
    with torch.no_grad():
        assert not equilibrium(net.f, x.requires_grad_(), z0, EXACT, EXACT).requires_grad


def _as_problem(net: TanhDEQ):  # noqa: ANN202
    from jiio_lightning.core import InnerProblem

    return InnerProblem(net.f, lambda z, x: z.sum(dim=1))
