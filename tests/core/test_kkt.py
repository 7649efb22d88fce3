from __future__ import annotations

import torch

from jiio_lightning.core import Augmented, Box, InnerProblem, L2Ball
from jiio_lightning.core.kkt import KKTLinearisation, kkt_adjoint, kkt_map, kkt_residual
from tests.core.problems import LinearQuadratic, TanhDEQ, explicit_gradients, polish


def leaf(v: Augmented) -> Augmented:
    return Augmented(*(block.detach().clone().requires_grad_() for block in (v.z, v.mu, v.x)))


def jacobian_of_map(problem: InnerProblem, v: Augmented) -> torch.Tensor:
    """dK/dv of the first sample ``(N, N)``."""
    packed = v.pack()

    def rows(packed: torch.Tensor) -> torch.Tensor:
        return kkt_map(problem, Augmented.unpack(packed, v.hidden)).pack()

    return torch.autograd.functional.jacobian(rows, packed)[0, :, 0]


def test_the_residual_is_zero_at_the_closed_form_and_only_there() -> None:
    linear = LinearQuadratic.random()
    v = linear.solution()
    at = kkt_residual(linear.problem(), v)
    assert max(float(row.max()) for row in (at.z, at.mu, at.x)) < 1e-12
    for name in ("z", "mu", "x"):
        moved = kkt_residual(linear.problem(), Augmented(**{**vars(v), name: getattr(v, name) + 0.1}))
        assert float((moved.z + moved.mu + moved.x).min()) > 1e-3


def test_the_residual_is_the_norm_of_each_row_of_eq_14() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(3, net.outputs)))
    v = Augmented(torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 3))
    rows, at = explicit_gradients(problem, v), kkt_residual(problem, v)
    for ours, row in ((at.z, rows.mu), (at.mu, rows.z), (at.x, rows.x)):
        torch.testing.assert_close(ours, row.norm(dim=1), rtol=1e-12, atol=0)


def test_the_residual_is_zero_at_a_constrained_optimum() -> None:
    """x* on the sphere and in the corner of a box, by the KKT conditions written down."""
    linear = LinearQuadratic.random()
    v = linear.solution()
    radius = 0.5 * float(v.x.norm(dim=1).min())
    x = _trust_region(linear, radius)
    for project in (L2Ball(radius), Box(x - 0.1 * (x > 0) - 1e-9 * (x < 0), x + 0.1 * (x < 0) + 1e-9 * (x > 0))):
        if isinstance(project, Box):  # a box whose corner is x and whose gradient points out of it
            project = Box(torch.where(_slope(linear, x) > 0, x, x - 1.0), torch.where(_slope(linear, x) < 0, x, x + 1.0))
        at = kkt_residual(linear.problem(project), _state(linear, x))
        assert max(float(row.max()) for row in (at.z, at.mu, at.x)) < 1e-9
        assert float(kkt_map(linear.problem(project), leaf(_state(linear, x))).pack().detach().abs().max()) < 1e-9
        assert float(kkt_residual(linear.problem(), _state(linear, x)).x.min()) > 1e-2  # the plain gradient is not zero


def _state(linear: LinearQuadratic, x: torch.Tensor) -> Augmented:
    z = (x @ linear.drive.T + linear.bias) @ linear.resolvent.T
    return Augmented(z, (z - linear.target) @ linear.resolvent, x)


def _slope(linear: LinearQuadratic, x: torch.Tensor) -> torch.Tensor:
    return (x - linear.solution().x) @ linear.hessian


def _trust_region(linear: LinearQuadratic, radius: float) -> torch.Tensor:
    """argmin of the quadratic over ||x|| <= radius: (H + nu I) x = H x*, nu by bisection."""
    free, eye = linear.solution().x @ linear.hessian, torch.eye(linear.drive.shape[1])
    low, high = torch.zeros(len(free)), torch.full((len(free),), 1e4)
    for _ in range(200):
        nu = (low + high) / 2
        x = torch.linalg.solve(linear.hessian + nu[:, None, None] * eye, free.unsqueeze(2)).squeeze(2)
        outside = x.norm(dim=1) > radius
        low, high = torch.where(outside, nu, low), torch.where(outside, high, nu)
    return x


def test_the_map_is_the_gradient_of_the_lagrangian_and_its_jacobian_symmetric() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(1, net.outputs)))
    v = leaf(Augmented(torch.randn(1, 5), torch.randn(1, 5), torch.randn(1, 3)))
    rows = torch.autograd.grad(problem.lagrangian(v).sum(), (v.z, v.mu, v.x))
    image = kkt_map(problem, v)
    for ours, row in zip((image.z, image.mu, image.x), rows, strict=True):
        torch.testing.assert_close(ours, row, rtol=1e-12, atol=1e-12)
    jacobian = jacobian_of_map(problem, v)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-10, atol=1e-12)


def test_the_map_has_a_graph_to_every_weight() -> None:
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(2, net.outputs)))
    v = leaf(Augmented(torch.randn(2, 5), torch.randn(2, 5), torch.randn(2, 3)))
    gradients = torch.autograd.grad(kkt_map(problem, v).pack().square().sum(), list(net.parameters()))
    assert all(bool(g.abs().max() > 0) for g in gradients)


def test_the_adjoint_is_the_explicit_solve_of_eq_17() -> None:
    net = TanhDEQ()
    for radius in (None, 0.3):
        problem = InnerProblem(net.f, net.fit(torch.randn(1, net.outputs)), L2Ball(radius) if radius else (lambda x: x))
        v = Augmented(torch.randn(1, 5), torch.randn(1, 5), problem.project(torch.randn(1, 3)))
        gradient = Augmented(torch.randn(1, 5), torch.zeros(1, 5), torch.randn(1, 3))
        u, solution = kkt_adjoint(KKTLinearisation(problem, v), gradient, memory=13, tol=1e-12)
        matrix = jacobian_of_map(problem, v)
        expected = torch.linalg.solve(matrix.T, -gradient.pack()[0])
        torch.testing.assert_close(u.pack()[0], expected, rtol=1e-7, atol=1e-9)
        assert bool(solution.within(1e-8).all())


def test_a_polished_reference_is_a_zero_of_the_map() -> None:
    """The tests' own reference and the package agree on what a KKT point is."""
    net = TanhDEQ()
    problem = InnerProblem(net.f, net.fit(torch.randn(3, net.outputs)))
    v = polish(problem, Augmented.start(torch.zeros(3, 3), 5), steps=30)
    at = kkt_residual(problem, v)
    assert max(float(row.max()) for row in (at.z, at.mu, at.x)) < 1e-11


def test_fifty_products_solve_a_wider_cell() -> None:
    """Rows of K paired with the blocks that they are solved for (f - z with z, dL/dz with mu): the diagonal is near -I.

    With dL/dz paired with z the same budget ends at a residual of 0.05.
    """
    net = TanhDEQ(hidden=40, width=8, outputs=30)
    problem = InnerProblem(net.f, net.fit(torch.randn(2, 30)))
    v = Augmented(0.3 * torch.randn(2, 40), 0.3 * torch.randn(2, 40), 0.3 * torch.randn(2, 8))
    gradient = Augmented(torch.randn(2, 40), torch.zeros(2, 40), torch.randn(2, 8))
    u, solution = kkt_adjoint(KKTLinearisation(problem, v), gradient, memory=50, restarts=1)
    assert bool(solution.within(1e-5).all()), solution.residual
    for row in range(2):
        one = InnerProblem(net.f, lambda z, x, row=row: problem.loss(z.expand(2, -1), x.expand(2, -1))[row : row + 1])
        matrix = jacobian_of_map(one, Augmented(v.z[row : row + 1], v.mu[row : row + 1], v.x[row : row + 1]))
        expected = torch.linalg.solve(matrix.T, -gradient.pack()[row])
        torch.testing.assert_close(u.pack()[row], expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
