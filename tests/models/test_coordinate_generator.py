from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Augmented, InnerProblem, Joint, Nested
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from jiio_lightning.models import IMFN, MFN, CoordinateGenerator


def make(width: int = 6, shape: tuple[int, int, int] = (1, 4, 4), latent: int = 3) -> CoordinateGenerator:
    torch.manual_seed(3)
    return CoordinateGenerator(latent, IMFN(2, shape[0], width=width, scale=4.0), shape).double()


def decode(net: CoordinateGenerator, x: Tensor) -> Tensor:
    solver = FixedPoint(Picard(), 400, tol=1e-13)
    return net.h(solver(lambda z: net.f(z, x), x.new_zeros(len(x), net.hidden)).value)


def problem_of(net: CoordinateGenerator, y: Tensor) -> InnerProblem:
    return InnerProblem(net.f, lambda z, x: (net.h(z) - y).square().flatten(1).sum(1))


def test_a_pixel_is_the_cell_at_its_coordinate():
    net = make(shape=(1, 3, 5))
    z, x = torch.randn(2, net.hidden).double(), torch.randn(2, 3).double()
    row, column = 2, 1
    c = torch.tensor([[2 * (row + 0.5) / 3 - 1, 2 * (column + 0.5) / 5 - 1]]).double()
    place = row * 5 + column
    g0, g1 = net.cell.inject(c).chunk(2, dim=1)
    linear = net.cell.linears[0]
    one = z.view(2, 15, 6)[:, place]
    expected = ((one + g0) @ linear.weight.T + linear.bias + x @ net.modulate.weight.T) * g1
    torch.testing.assert_close(net.f(z, x).view(2, 15, 6)[:, place], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net.h(z)[:, :, row, column], net.cell.head(one))


@torch.no_grad()
def least_squares(net: CoordinateGenerator, y: Tensor) -> Tensor:
    """argmin_x: the image is affine in x."""
    zero = decode(net, torch.zeros(1, net.latent).double()).flatten()
    columns = decode(net, torch.eye(net.latent).double()).flatten(1) - zero
    return torch.linalg.lstsq(columns.T, (y.flatten(1) - zero).T).solution.T


def test_joint_reaches_the_linear_least_squares_solution():
    net = make()
    y = torch.randn(4, 1, 4, 4).double()
    v0 = Augmented.start(torch.zeros(4, 3).double(), net.hidden)
    solution = Joint(max_steps=400, tol=1e-9)(problem_of(net, y), v0)
    torch.testing.assert_close(solution.v.x, least_squares(net, y), rtol=1e-4, atol=1e-5)
    assert bool(solution.feasible(1e-8).all())


def test_nested_stays_at_the_linear_least_squares_solution():
    net = make()
    y, tight = torch.randn(4, 1, 4, 4).double(), FixedPoint(Picard(), 100)
    exact = least_squares(net, y)
    for x, moves in ((exact, False), (exact + 0.1, True)):
        solution = Nested(Plain(0.05), tight, tight, max_steps=2)(problem_of(net, y), Augmented.start(x, net.hidden))
        assert torch.allclose(solution.v.x, x, rtol=1e-6, atol=1e-7) is not moves


def test_codes_of_a_coarse_grid_are_read_on_a_fine_one():
    net = make()
    fine = net.at((1, 12, 12))
    x = torch.randn(2, 3).double()
    coarse_image, fine_image = decode(net, x), decode(fine, x)
    torch.testing.assert_close(fine_image[:, :, 1::3, 1::3], coarse_image, rtol=1e-6, atol=1e-7)
    assert net.image_shape == (1, 4, 4) and fine.modulate is net.modulate
    assert set(net.state_dict()) == set(fine.state_dict()) and "c" not in net.state_dict()


def test_an_explicit_cell_does_not_look_at_z():
    net = CoordinateGenerator(3, MFN(2, 1, width=6), (1, 4, 4))
    x = torch.randn(2, 3)
    assert net.f(torch.randn(2, net.hidden), x).equal(net.f(torch.zeros(2, net.hidden), x))


def test_a_cell_for_other_images_is_refused():
    with pytest.raises(ValueError, match="set model.net.cell.dims"):
        CoordinateGenerator(3, IMFN(2, 3), (1, 4, 4))
