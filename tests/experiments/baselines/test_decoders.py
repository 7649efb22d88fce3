"""The decoders of the baselines, and the explicit generator as an equilibrium network."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import ConvDecoder, ExplicitGenerator
from jiio_lightning.core import Augmented, InnerProblem, Nested
from jiio_lightning.core.jacobian import jacobian_penalty, mode_penalty
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.solvers.selection import Last
from jiio_lightning.core.steps import Plain
from jiio_lightning.models import LatentGenerator

TWO = FixedPoint(Picard(), 2)


@pytest.mark.parametrize("size", [(7, 5), (8, 8), (9, 12), (15, 15), (16, 16), (28, 28), (32, 32), (33, 40), (64, 64)])
@pytest.mark.parametrize("kernel", [4, 5])
def test_images_of_any_size(size, kernel):
    decoder, x = ConvDecoder(3, (2, *size), 1, kernel).eval(), torch.randn(2, 3)
    image, whole = decoder(x), decoder.layers(decoder.widen(x).unflatten(1, decoder.start))
    assert image.shape == (2, 2, *size) and image.abs().max() <= 1 and image.equal(whole[..., : size[0], : size[1]])


@pytest.mark.parametrize("shape, kernel, channels", [((3, 64, 64), 5, [512, 256, 128]), ((1, 32, 32), 4, [512, 256])])
def test_the_sizes_of_the_rae_paper(shape, kernel, channels):
    """From 1024 channels at 8x8 to 512, 256 and 128; for MNIST without 128."""
    with torch.device("meta"):
        decoder = ConvDecoder(64, shape, kernel=kernel)
    doublings = [tuple(m.weight.shape) for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    wanted = [(before, after, kernel, kernel) for before, after in zip([1024, *channels], channels, strict=False)]
    assert decoder.start == (1024, 8, 8) and doublings == wanted


@pytest.mark.parametrize("side, width, downscale", [(28, 9, 2), (8, 9, 1)])
def test_the_small_decoders_are_as_large_as_their_mdeq(side, width, downscale):
    shape = (1, side, side)
    explicit = count(ExplicitGenerator(ConvDecoder(16, shape, width)))
    mdeq = count(LatentGenerator(16, (16, 32), shape, downscale=downscale, expansion=1))
    assert abs(explicit / mdeq - 1) < 0.1


def count(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def explicit(dtype: torch.dtype = torch.float64) -> ExplicitGenerator:
    torch.manual_seed(0)
    return ExplicitGenerator(ConvDecoder(3, (1, 8, 8), 2)).to(dtype).eval()


def test_an_explicit_generator_is_a_deq_without_feedback():
    net = explicit()
    z, x = torch.randn(2, 64, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    assert net.hidden == 64 and net.f(z, x).equal(net.decoder(x).flatten(1)) and net.h(net.f(z, x)).equal(net.decoder(x))
    assert net.decode(x, Layers(TWO, TWO)).equal(net.decoder(x))
    probes = torch.randn(2, 2, 64, dtype=torch.float64)
    assert jacobian_penalty(net.f, z, x, probes) == 0 and mode_penalty(net.f, z, x, probes[0]) == 0


def test_nested_on_an_explicit_generator_is_gradient_descent_through_the_decoder():
    net = explicit()
    target = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    problem = InnerProblem(net.f, lambda z, x: (net.h(z) - target).square().flatten(1).sum(dim=1))
    start = Augmented.start(torch.zeros(2, 3, dtype=torch.float64), net.hidden)
    found = Nested(Plain(0.01), TWO, TWO, max_steps=5, selection=Last())(problem, start)

    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(4):  # the fifth evaluation judges the fourth step
        (slope,) = torch.autograd.grad((net.decoder(x) - target).square().sum(), x)
        x = (x - 0.01 * slope).detach().requires_grad_()
    assert torch.allclose(found.v.x, x, rtol=1e-10) and x.abs().max() > 1e-3
    assert found.residuals[:, :2].max() == 0
