from __future__ import annotations

import pytest
import torch

from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.models import ImageClassifier
from jiio_lightning.models.head import GridMeans, PooledHead
from jiio_lightning.models.injection import ImageInjection
from jiio_lightning.models.multiscale import Pyramid
from tests.core.problems import spectral_radius


def small(**options) -> ImageClassifier:
    settings = {"channels": (8, 8), "image_shape": (1, 8, 8), "expansion": 1, "head_width": 4, "features": 16} | options
    return ImageClassifier(**settings)


@pytest.mark.parametrize("downscale, hidden", [(1, 8 * 64 + 8 * 16), (2, 8 * 16 + 8 * 4), (4, 8 * 4 + 8 * 1)])
def test_images_go_in_and_logits_come_out(downscale, hidden):
    net = small(downscale=downscale, num_classes=7)
    image = torch.rand(3, 1, 8, 8)
    z = net.f(torch.randn(3, net.hidden), image.flatten(1))
    assert net.hidden == hidden and z.shape == (3, hidden) and net.h(z).shape == (3, 7)
    assert torch.equal(net.inject(image), net.inject(image.flatten(1)))


def test_a_fresh_cell_is_a_contraction():
    """Else no attack and no training has an equilibrium to begin with; with injection at the finest scale alone it is none."""
    torch.manual_seed(0)
    net, image = ImageClassifier((24, 24), (1, 14, 14)), torch.rand(4, 196)
    with torch.no_grad():
        solution = FixedPoint(Anderson(memory=8), 60, tol=1e-5)(lambda z: net.f(z, image), torch.zeros(4, net.hidden))
    assert float(solution.residual.max()) < 1e-5
    assert float(spectral_radius(net.f, solution.value, image, torch.randn(4, net.hidden), steps=20).max()) < 0.9


def test_the_injection_has_unit_variance_whatever_the_contrast():
    inject = ImageInjection(Pyramid((8, 8), (8, 8)), (1, 8, 8))
    for contrast in (0.05, 1.0):
        injection = inject(contrast * torch.rand(2, 64))
        assert all(float(part.detach().std()) == pytest.approx(1, abs=0.05) for part in injection.split([512, 128], dim=1))


def test_a_stem_has_the_widths_that_it_is_given():
    """Its strides are in its first two convolutions; two convolutions of the finest map's width are what a net has always had."""
    pyramid = Pyramid((8, 16), (4, 4))
    for stem, widths in ((None, [1, 8, 8]), ((8,), [1, 8, 8]), ((12, 20), [1, 12, 20, 8])):
        inject = ImageInjection(pyramid, (1, 16, 16), downscale=4, stem=stem)
        convolutions = [layer for layer in inject.stem if isinstance(layer, torch.nn.Conv2d)]
        assert [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)] == widths
        assert [layer.stride[0] for layer in convolutions] == [2, 2, 1][: len(convolutions)]
        assert inject(torch.rand(3, 256)).shape == (3, pyramid.numel)
    with pytest.raises(ValueError, match="stem needs at least one number"):
        ImageInjection(pyramid, (1, 16, 16), downscale=4, stem=())


def test_a_sample_does_not_depend_on_its_batch_mates():
    net = small().double()
    z, image = torch.randn(3, net.hidden).double(), torch.rand(3, 64).double()
    together = net.h(net.f(z, image))
    for i in range(3):
        torch.testing.assert_close(net.h(net.f(z[i : i + 1], image[i : i + 1])), together[i : i + 1], rtol=1e-10, atol=1e-12)


def test_the_head_sees_every_scale():
    head = PooledHead((4, 6, 8), 5, width=4, features=16)
    maps = [torch.randn(2, 4, 9, 9), torch.randn(2, 6, 5, 5), torch.randn(2, 8, 3, 3)]
    out = head(maps)
    assert out.shape == (2, 5)
    for i, z in enumerate(maps):
        moved = head([torch.randn_like(z) if j == i else other for j, other in enumerate(maps)])
        assert not torch.allclose(moved, out, atol=1e-4)


@pytest.mark.parametrize(("size", "side"), [((7, 7), 4), ((9, 5), 3), ((3, 2), 4), ((8, 8), 4), ((5, 6), 1)])
def test_grid_means_are_adaptive_pooling(size, side):
    maps = torch.randn(2, 3, *size).requires_grad_()
    mine, theirs = GridMeans(side)(maps), torch.nn.functional.adaptive_avg_pool2d(maps, side)
    torch.testing.assert_close(mine, theirs)
    cotangent = torch.randn_like(mine)
    torch.testing.assert_close(*(torch.autograd.grad(means, maps, cotangent) for means in (mine, theirs)))


@torch.no_grad()
def test_the_head_sees_where_things_are():
    """The global mean of MDEQ hardly does, and not what they are either once group norms have fixed it."""
    z = torch.nn.functional.pad(torch.randn(16, 8, 3, 3), (5, 0, 5, 0))
    mirrored = z.flip(-1)
    moved = [
        float((head([z]) - head([mirrored])).norm() / head([z]).norm()) for head in (PooledHead((8,), 10, pool=p) for p in (1, 4))
    ]
    assert moved[1] > 3 * moved[0]


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="downscale=3 do not fit an image of 8x8"):
        small(downscale=3)
    with pytest.raises(ValueError, match="do not fit an image of 28x28"):
        ImageInjection(Pyramid((8, 8), (8, 8)), (1, 28, 28))
