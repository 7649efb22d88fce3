from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from jiio_lightning.core.jacobian import jacobian_penalty, mode_penalty
from tests.core.problems import TanhDEQ, spectral_radius


def jacobian(net: TanhDEQ, z: Tensor, x: Tensor) -> Tensor:
    """J_z of each sample ``(B, n, n)``, with a graph to the weights."""
    return torch.stack([jacrev(lambda z, x=x[i : i + 1]: net.f(z.unsqueeze(0), x).squeeze(0))(z[i]) for i in range(len(z))])


def example() -> tuple[TanhDEQ, Tensor, Tensor]:
    net = TanhDEQ()
    return net, torch.randn(3, net.hidden), torch.randn(3, net.width)


def basis(batch: int, width: int) -> Tensor:
    """Probes whose second moment is exactly the identity."""
    return math.sqrt(width) * torch.eye(width).unsqueeze(1).expand(width, batch, width)


def test_with_a_full_basis_the_penalty_is_the_mean_square_of_the_jacobian() -> None:
    net, z, x = example()
    penalty = jacobian_penalty(net.f, z, x, basis(3, net.hidden))
    expected = jacobian(net, z, x).square().sum(dim=(1, 2)).mean() / net.hidden
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)


def test_and_so_is_its_gradient_with_respect_to_the_weights() -> None:
    net, z, x = example()
    parameters = (net.cell, net.injection, net.bias)
    ours = torch.autograd.grad(jacobian_penalty(net.f, z, x, basis(3, net.hidden)), parameters)
    theirs = torch.autograd.grad(jacobian(net, z, x).square().sum(dim=(1, 2)).mean() / net.hidden, parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_with_normal_probes_it_is_right_on_average() -> None:
    net, z, x = example()
    penalty = jacobian_penalty(net.f, z, x, torch.randn(3000, 3, net.hidden))
    expected = jacobian(net, z, x).square().sum(dim=(1, 2)).mean() / net.hidden
    torch.testing.assert_close(penalty, expected, rtol=0.05, atol=0)


def test_it_does_not_depend_on_the_size_of_the_batch() -> None:
    net, z, x = example()
    probes = torch.randn(2, 3, net.hidden)
    twice = jacobian_penalty(net.f, torch.cat([z, z]), torch.cat([x, x]), torch.cat([probes, probes], dim=1))
    torch.testing.assert_close(twice, jacobian_penalty(net.f, z, x, probes))


def test_it_sends_no_gradient_to_z_and_x() -> None:
    net, z, x = example()
    z.requires_grad_(), x.requires_grad_()
    jacobian_penalty(net.f, z, x, torch.randn(1, 3, net.hidden)).backward()
    assert net.cell.grad is not None and z.grad is None and x.grad is None


def test_its_value_can_be_had_where_gradients_are_off() -> None:
    net, z, x = example()
    probes = torch.randn(2, 3, net.hidden)
    with torch.no_grad():
        value = jacobian_penalty(net.f, z, x, probes)
    torch.testing.assert_close(value, jacobian_penalty(net.f, z, x, probes).detach(), rtol=0, atol=0)


def linear(matrix: Tensor):  # noqa: ANN202
    return lambda z, x: z @ matrix.T + x


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_spectral_radius_of_a_complex_pair(angle: float) -> None:
    c, s = math.cos(angle), math.sin(angle)
    block = torch.block_diag(1.1 * torch.tensor([[c, -s], [s, c]]), torch.tensor([[0.4]]))
    skew = torch.eye(3) + 0.3 * torch.randn(3, 3)  # not normal: growth factors swing
    matrix = skew @ block @ torch.linalg.inv(skew)
    assert float(torch.linalg.eigvals(matrix).abs().max()) == pytest.approx(1.1)
    radius = spectral_radius(linear(matrix), torch.zeros(2, 3), torch.zeros(2, 3), torch.randn(2, 3), steps=100)
    torch.testing.assert_close(radius, torch.full((2,), 1.1), rtol=0.03, atol=0)


def test_spectral_radius_against_eigenvalues_of_a_nonlinear_cell_for_each_sample() -> None:
    net, z, x = example()
    eigenvalues = torch.linalg.eigvals(jacobian(net, z, x).detach()).abs().amax(dim=1)
    radius = spectral_radius(net.f, z, x, torch.randn(3, net.hidden), steps=400)
    torch.testing.assert_close(radius, eigenvalues, rtol=0.03, atol=0)


def linear_cell(matrix):
    return lambda z, x: z @ matrix.T + x


def test_the_mode_penalty_is_a_hinge_on_the_largest_stretch():
    """A symmetric J: its leading mode is known, and the power iteration finds it."""
    values = torch.tensor([0.95, 0.3, -0.2, 0.1], dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    f = linear_cell(basis @ torch.diag(values) @ basis.T)
    z = torch.zeros(2, 4, dtype=torch.float64)
    probe = torch.ones_like(z)
    measured = mode_penalty(f, z, z, probe, steps=20, ceiling=0.7)
    assert float(measured) == pytest.approx(0.95**2 - 0.7**2, rel=1e-6)
    assert float(mode_penalty(f, z, z, probe, steps=20, ceiling=0.96)) == 0


def test_the_mode_penalty_sees_what_the_mean_square_misses():
    n = 200
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix[0, 0] = -1.5  # one unstable mode: the mean square is 0.011
    z = torch.zeros(1, n, dtype=torch.float64)
    f = linear_cell(matrix)
    assert float(jacobian_penalty(f, z, z, torch.ones(1, 1, n, dtype=torch.float64))) < 0.02
    assert float(mode_penalty(f, z, z, torch.ones(1, n, dtype=torch.float64))) == pytest.approx(1.5**2 - 0.7**2)


def test_the_gradient_of_the_mode_penalty_points_to_stability():
    scale = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    z = torch.zeros(1, 3, dtype=torch.float64)
    mode_penalty(lambda z, x: scale * z + x, z, z, torch.ones_like(z)).backward()
    assert float(scale.grad) == pytest.approx(2 * 1.2)
