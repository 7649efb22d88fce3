from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from jiio_lightning.core import Augmented, FullKKT, InnerProblem, Joint
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.models.generator import LatentGenerator, unit_injection
from tests.core.problems import spectral_radius


def small() -> LatentGenerator:
    return LatentGenerator(latent=3, channels=(4, 8), image_shape=(1, 6, 6), expansion=2)


@pytest.mark.parametrize(
    ("channels", "image_shape", "downscale"),
    [
        ((4,), (1, 5, 7), 1),
        ((4, 8), (3, 8, 8), 1),
        ((4, 8), (1, 28, 28), 2),
        ((4, 4, 8), (3, 20, 16), 4),
        ((4, 4, 4, 8), (3, 16, 16), 1),
    ],
)
def test_shapes(channels: tuple[int, ...], image_shape: tuple[int, int, int], downscale: int) -> None:
    net = LatentGenerator(5, channels, image_shape, downscale=downscale, expansion=2)
    z, x = torch.randn(2, net.hidden), torch.randn(2, 5)
    assert net.f(z, x).shape == (2, net.hidden)
    image = net.h(z)
    assert image.shape == (2, *image_shape) and bool((image.abs() <= 1.0).all())
    assert net.cell.pyramid.size == (image_shape[1] // downscale, image_shape[2] // downscale)


def test_a_side_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="downscale=2"):
        LatentGenerator(5, (4, 8), (1, 7, 8), downscale=2)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("image_shape", "downscale"), [((1, 8, 8), 1), ((1, 28, 28), 2)], ids=["digits", "mnist"])
@pytest.mark.parametrize("latents", ["zero", "normal"])
def test_f_is_a_contraction_at_initialisation(image_shape: tuple[int, int, int], downscale: int, latents: str, seed: int) -> None:
    """Around the equilibrium, for the start of every solve (x = 0) and for typical latents."""
    torch.manual_seed(seed)
    net = LatentGenerator(16, (16, 32), image_shape, downscale=downscale)
    x = torch.zeros(4, 16) if latents == "zero" else torch.randn(4, 16)
    z = torch.zeros(4, net.hidden)
    with torch.no_grad(), parametrize.cached():
        for _ in range(20):
            z = net.f(z, x)
    with parametrize.cached():
        radius = spectral_radius(net.f, z, x, torch.randn_like(z), steps=20)
    assert float(radius.max()) < 1.0, radius


def test_x_moves_the_equilibrium_and_the_image() -> None:
    net = small()
    images = []
    for x in (torch.zeros(1, 3), torch.ones(1, 3)):
        z = torch.zeros(1, net.hidden)
        for _ in range(30):
            z = net.f(z, x).detach()
        images.append(net.h(z))
    assert bool(((images[0] - images[1]).abs() > 0.05).any())


def test_a_sample_does_not_depend_on_its_batch_mates() -> None:
    net = small().double()
    z, x = torch.randn(3, net.hidden).double(), torch.randn(3, 3).double()
    for i in range(3):
        torch.testing.assert_close(net.f(z[i : i + 1], x[i : i + 1]), net.f(z, x)[i : i + 1], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(net.h(z[i : i + 1]), net.h(z)[i : i + 1], rtol=1e-10, atol=1e-12)


def test_every_weight_gets_a_gradient_from_the_lagrangian() -> None:
    net = small()
    problem = InnerProblem(net.f, lambda z, x: (net.h(z) - 0.3).square().flatten(1).sum(dim=1))
    v = Joint(max_steps=5)(problem, Augmented.start(torch.zeros(2, 3), net.hidden)).v
    problem.lagrangian(v).sum().backward()
    silent = [name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not silent


def test_a_solve_under_cached_weights_is_the_same_and_trains_afterwards() -> None:
    net, target = small(), torch.rand(2, 1, 6, 6)
    problem = InnerProblem(net.f, lambda z, x: (net.h(z) - target).square().flatten(1).sum(dim=1))
    start = Augmented.start(torch.zeros(2, 3), net.hidden)
    plain = Joint(max_steps=5)(problem, start)
    with parametrize.cached():
        cached = Joint(max_steps=5)(problem, start)
        surrogate = problem.lagrangian(cached.v).sum()
    assert torch.equal(plain.v.pack(), cached.v.pack())
    surrogate.backward()
    reference = torch.autograd.grad(problem.lagrangian(plain.v).sum(), list(net.parameters()))
    for parameter, gradient in zip(net.parameters(), reference, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_copy_is_the_same_function() -> None:
    net = small()
    twin, z, x = copy.deepcopy(net), torch.randn(2, net.hidden), torch.randn(2, 3)
    assert torch.equal(twin.f(z, x), net.f(z, x)) and torch.equal(twin.h(z), net.h(z))


def test_the_penalty_and_the_full_gradient_go_through_it() -> None:
    """Both need double backward through group norm, weight norm and upsampling."""
    net = small()
    problem = InnerProblem(net.f, lambda z, x: (net.h(z) - 0.3).square().flatten(1).sum(dim=1))
    v = Joint(max_steps=20)(problem, Augmented.start(torch.zeros(2, 3), net.hidden)).v
    penalty = jacobian_penalty(net.f, v.z, v.x, torch.randn(1, 2, net.hidden))
    surrogate = FullKKT(memory=10, restarts=1).surrogate(problem, lambda z, x: net.h(z).flatten(1).sum(dim=1), v)
    (penalty + surrogate.value.sum()).backward()
    assert all(parameter.grad is None or bool(torch.isfinite(parameter.grad).all()) for parameter in net.parameters())
    assert net.inject.weight.grad is not None and bool(net.inject.weight.grad.any())


def test_a_latent_of_unit_variance_moves_z_by_its_own_size() -> None:
    """Rows of the injection have the length 1 in the mean of squares, of which 64,000 weights know 1 / sqrt(32,000)."""
    inject = unit_injection(latent=64, hidden=1000)
    lengths = inject.weight.square().sum(dim=1).mean().item(), inject.bias.square().mean().item()
    assert lengths == pytest.approx((1.0, 1.0), rel=3 * (2 / 1000) ** 0.5)
    assert lengths[0] == pytest.approx(1.0, rel=3 / 32_000**0.5)
