"""The encoders and decoders of the baselines."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import ConvDecoder, ConvEncoder, ExplicitGenerator, MDEQEncoder
from jiio_lightning.core import Augmented, InnerProblem, Nested
from jiio_lightning.core.jacobian import jacobian_penalty, mode_penalty
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.solvers import Anderson, FixedPoint, Picard
from jiio_lightning.core.solvers.selection import Last
from jiio_lightning.core.steps import Plain
from jiio_lightning.models import LatentGenerator


def layers() -> Layers:
    tight = FixedPoint(Anderson(memory=5), 200, 1e-12)
    return Layers(tight, tight)


def parameters(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (15, 15), (16, 16), (28, 28), (32, 32), (33, 40), (64, 64)])
@pytest.mark.parametrize("kernel", [4, 5])
def test_any_size_goes_there_and_back(size, kernel):
    shape = (2, *size)
    encoder, decoder = ConvEncoder(3, shape, 1, kernel), ConvDecoder(3, shape, 1, kernel)
    code = encoder(torch.randn(2, *shape), layers())
    assert code.mean.shape == (2, 3) and code.log_variance is None
    image = decoder(code.mean)
    assert image.shape == (2, *shape) and image.abs().max() <= 1


def test_the_sizes_of_the_rae_paper():
    """128 to 1024 channels down to 4x4 in the encoder; from 1024 at 8x8 to 512, 256, 128 in the decoder (MNIST: no 128)."""
    encoder, decoder = ConvEncoder(64, (3, 64, 64), kernel=5), ConvDecoder(64, (3, 64, 64), kernel=5)
    kernels = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(128, 3, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5), (1024, 512, 5, 5)]
    assert encoder.layers[-1].in_features == 1024 * 4 * 4
    doublings = [tuple(m.weight.shape) for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert decoder.start == (1024, 8, 8) and doublings == [(1024, 512, 5, 5), (512, 256, 5, 5), (256, 128, 5, 5)]
    mnist = ConvDecoder(16, (1, 32, 32))
    doublings = [tuple(m.weight.shape) for m in mnist.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert mnist.start == (1024, 8, 8) and doublings == [(1024, 512, 4, 4), (512, 256, 4, 4)]


@pytest.mark.parametrize("side, width, downscale", [(28, 9, 2), (8, 9, 1)])
def test_the_small_decoders_are_as_large_as_their_mdeq(side, width, downscale):
    shape = (1, side, side)
    explicit = parameters(ExplicitGenerator(ConvDecoder(16, shape, width)))
    mdeq = parameters(LatentGenerator(16, (16, 32), shape, downscale=downscale, expansion=1))
    assert abs(explicit / mdeq - 1) < 0.1


@pytest.mark.parametrize("arguments", [(3, (1, 7, 8)), (0, (1, 8, 8)), (3, (1, 8, 8), 0)])
@pytest.mark.parametrize("net", [ConvEncoder, ConvDecoder])
def test_what_makes_no_autoencoder(net, arguments):
    with pytest.raises(ValueError, match="images of at least 8 pixels a side, latent >= 1 and width >= 1, got"):
        net(*arguments)


def test_a_variational_encoder_gives_means_and_variances():
    torch.manual_seed(0)
    encoder = ConvEncoder(3, (1, 8, 8), 2, variational=True).eval()
    image = torch.randn(4, 1, 8, 8)
    code, numbers = encoder(image, layers()), encoder.numbers(image, layers())
    assert code.mean.equal(numbers[:, :3]) and code.log_variance.equal(numbers[:, 3:])


def explicit(dtype: torch.dtype = torch.float64) -> ExplicitGenerator:
    torch.manual_seed(0)
    return ExplicitGenerator(ConvDecoder(3, (1, 8, 8), 2)).to(dtype).eval()


def test_an_explicit_generator_is_a_deq_without_feedback():
    net = explicit()
    z, x = torch.randn(2, 64, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    assert net.hidden == 64 and net.f(z, x).equal(net.decoder(x).flatten(1)) and net.h(net.f(z, x)).equal(net.decoder(x))
    assert net.decode(x, layers()).equal(net.decoder(x))
    probes = torch.randn(2, 2, 64, dtype=torch.float64)
    assert jacobian_penalty(net.f, z, x, probes) == 0 and mode_penalty(net.f, z, x, probes[0]) == 0


def test_nested_on_an_explicit_generator_is_gradient_descent_through_the_decoder():
    net = explicit()
    target = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    problem = InnerProblem(net.f, lambda z, x: (net.h(z) - target).square().flatten(1).sum(dim=1))
    two = FixedPoint(Picard(), 2)
    start = Augmented.start(torch.zeros(2, 3, dtype=torch.float64), net.hidden)
    found = Nested(Plain(0.01), two, two, max_steps=5, selection=Last())(problem, start)

    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(4):  # the fifth evaluation judges the fourth step
        (slope,) = torch.autograd.grad((net.decoder(x) - target).square().sum(), x)
        x = (x - 0.01 * slope).detach().requires_grad_()
    assert torch.allclose(found.v.x, x, rtol=1e-10) and x.abs().max() > 1e-3
    assert found.residuals[:, :2].max() == 0


def test_the_mdeq_encoder_is_its_head_at_the_equilibrium():
    torch.manual_seed(0)
    encoder = MDEQEncoder(3, (8, 8), (1, 8, 8), expansion=1, features=16, head_width=4, variational=True).double()
    image, solve = torch.randn(2, 1, 8, 8, dtype=torch.float64), layers()
    code = encoder(image, solve)
    (layer,) = solve.solved
    assert layer.residual.max() < 1e-11 and layer.x.equal(encoder.inject(image))
    numbers = encoder.head(encoder.cell.pyramid.unpack(layer.z))
    assert torch.allclose(torch.cat([code.mean, code.log_variance], dim=1), numbers) and numbers.shape == (2, 6)
