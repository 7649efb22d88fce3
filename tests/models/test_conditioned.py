from __future__ import annotations

import pytest
import torch

from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.models import FiLMClassifier
from tests.core.problems import spectral_radius


def small(**options) -> FiLMClassifier:
    settings = {"task": 15, "channels": (8, 8), "image_shape": (1, 8, 8), "expansion": 2, "head_width": 4, "features": 16}
    return FiLMClassifier(**settings | options)


def test_at_x_0_the_cell_is_that_without_film_and_all_classes_are_as_likely():
    net, image = small(), torch.rand(3, 1, 8, 8)
    z = torch.randn(3, net.hidden)
    assert torch.equal(net.f(z, torch.zeros(3, 15), net.inject(image)), net.base.f(z, image))
    assert torch.equal(net.h(z, torch.zeros(3, 15)), torch.zeros(3, 5))


def test_x_weighs_features_of_mean_0_and_variance_1():
    net = small()
    z, x = torch.randn(3, net.hidden), torch.randn(3, 15)
    features = net.base.h(z)
    assert features.shape == (3, 3)
    features = (features - features.mean(1, keepdim=True)) / (features.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    wanted = torch.stack([(x[b].view(5, 3) * features[b]).sum(1) for b in range(3)]) / 3**0.5
    torch.testing.assert_close(net.h(z, x), wanted)


def test_the_last_layer_can_be_one_for_all_tasks():
    net = small(weight_head=False, task=12)
    z, x = torch.randn(3, net.hidden), torch.randn(3, 12)
    assert torch.equal(net.h(z, x), net.base.h(z)) and net.h(z, x).shape == (3, 5)


def test_what_is_left_of_x_beside_the_last_layer_acts_on_the_cell_alone():
    net = small(task=17)
    z, x = torch.randn(3, net.hidden), torch.randn(3, 17)
    other = torch.cat([x[:, :15], torch.randn(3, 2)], dim=1)
    assert torch.equal(net.h(z, x), net.h(z, other))
    injection = net.inject(torch.rand(3, 1, 8, 8))
    assert not torch.equal(net.f(z, x, injection), net.f(z, other, injection))


def test_a_task_vector_too_short_for_a_last_layer_is_refused():
    """One feature without its mean is 0, and two are 1 and -1."""
    with pytest.raises(ValueError, match="model.net.task is 14: a last layer of 5 classes takes 15 at least"):
        small(task=14)


def test_film_modulates_what_leaves_the_first_norm_of_each_block():
    """Written out for one scale: norm, then (1 + Gamma x) map + B x, then ReLU."""
    net = small(channels=(8,))
    z, x, image = torch.randn(2, net.hidden), torch.randn(2, 15), torch.rand(2, 1, 8, 8)
    block, maps = net.base.cell.blocks[0], net.base.cell.pyramid.unpack(z)[0]
    scale, shift = (x @ weight.T for weight in net.film[0].weight.chunk(2))
    hidden = block.widen_norm(block.widen(maps)) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    injection = net.inject(image)
    inner = block.narrow_norm(block.narrow(hidden.relu()) + net.base.cell.pyramid.unpack(injection)[0])
    wanted = net.base.cell.pyramid.pack(net.base.cell.fusion([block.out_norm((inner + maps).relu())]))
    torch.testing.assert_close(net.f(z, x, injection), wanted)


def test_the_summary_halves_large_maps_and_keeps_small_ones():
    net = small()
    z = torch.randn(3, net.hidden)
    large, little = net.base.cell.pyramid.unpack(z)
    assert large.shape[-1] == 8 and little.shape[-1] == 4
    halved = (large[..., ::2, ::2] + large[..., 1::2, ::2] + large[..., ::2, 1::2] + large[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(net.summary(z), torch.cat([halved.flatten(1), little.flatten(1)], dim=1))


def test_a_unit_x_changes_scale_and_shift_by_the_gain():
    net, x = small(task=400, gain=0.5), torch.randn(64, 400)
    for linear in net.film:
        assert float(linear(x).detach().std()) == pytest.approx(0.5, abs=0.05)


@torch.no_grad()
def test_a_fresh_cell_is_a_contraction_also_after_the_first_step_in_x():
    net, image = FiLMClassifier(40, (16, 16), (1, 14, 14)), torch.rand(4, 1, 14, 14)
    injection = net.inject(image)
    for x in (torch.zeros(4, 40), 0.2 * torch.randn(4, 40)):
        z = FixedPoint(Anderson(memory=8), 100, tol=1e-5)(lambda z, x=x: net.f(z, x, injection), torch.zeros(4, net.hidden)).value
        radius = spectral_radius(lambda z, x: net.f(z, x, injection), z, x, torch.randn_like(z), steps=20)
        assert float(radius.max()) < 1
