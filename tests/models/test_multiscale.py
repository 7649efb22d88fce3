from __future__ import annotations

import pytest
import torch
from torch import nn

from jiio_lightning.models.multiscale import Down, Fusion, Pyramid, Up

PYRAMIDS = [
    Pyramid((3,), (5, 7)),
    Pyramid((2, 4), (8, 8)),
    Pyramid((2, 4, 8), (9, 13)),
    Pyramid((4, 4, 4, 4), (11, 8)),
]
each = pytest.mark.parametrize("pyramid", PYRAMIDS, ids=lambda p: f"{len(p.channels)}-{p.size}")


def test_each_scale_halves_the_one_before_rounding_up() -> None:
    assert Pyramid((2, 4, 8), (9, 13)).shapes == ((2, 9, 13), (4, 5, 7), (8, 3, 4))
    assert Pyramid((1, 1, 1, 1), (28, 28)).shapes == ((1, 28, 28), (1, 14, 14), (1, 7, 7), (1, 4, 4))


@each
def test_a_map_has_the_size_that_a_strided_convolution_makes(pyramid: Pyramid) -> None:
    z = torch.zeros(1, pyramid.channels[0], *pyramid.size)
    for channels, height, width in pyramid.shapes[1:]:
        z = torch.nn.Conv2d(z.shape[1], channels, 3, stride=2, padding=1)(z)
        assert z.shape[2:] == (height, width)


@each
def test_packing_is_a_round_trip_in_both_directions(pyramid: Pyramid) -> None:
    packed = torch.randn(3, pyramid.numel)
    maps = pyramid.unpack(packed)
    assert [tuple(z.shape[1:]) for z in maps] == list(pyramid.shapes)
    assert torch.equal(pyramid.pack(maps), packed)
    assert all(torch.equal(a, b) for a, b in zip(pyramid.unpack(pyramid.pack(maps)), maps, strict=True))


@each
def test_unpacking_copies_nothing_and_works_on_a_block_of_a_wider_matrix(pyramid: Pyramid) -> None:
    wide = torch.randn(3, 2 * pyramid.numel + 4)
    block = wide[:, : pyramid.numel]
    maps = pyramid.unpack(block)
    assert torch.equal(pyramid.pack(maps), block)
    wide.zero_()
    assert not any(z.any() for z in maps)


@pytest.mark.parametrize(("channels", "size"), [((), (4, 4)), ((2, 2), (1, 1)), ((2, 2, 2), (8, 3))])
def test_scales_that_do_not_fit_are_refused(channels: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="scales do not fit"):
        Pyramid(channels, size)


@pytest.mark.parametrize(("source", "target", "strides"), [(0, 1, 1), (1, 2, 1), (0, 2, 2), (0, 3, 3)])
def test_down_takes_one_strided_convolution_for_each_halving(source: int, target: int, strides: int) -> None:
    pyramid = Pyramid((4, 6, 8, 10), (13, 9))
    down = Down(pyramid.channels, source, target, groups=2)
    convolutions = [layer for layer in down.layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == strides and all(layer.stride == (2, 2) for layer in convolutions)
    assert [layer.out_channels for layer in convolutions[:-1]] == [pyramid.channels[source]] * (strides - 1)
    # ReLUs between halvings; the sum of all scales is rectified, not its terms
    assert [isinstance(layer, nn.ReLU) for layer in down.layers] == [False, False, True] * (strides - 1) + [False, False]
    assert down(torch.randn(2, *pyramid.shapes[source])).shape[1:] == pyramid.shapes[target]


@pytest.mark.parametrize(("source", "target"), [(1, 0), (2, 1), (3, 0)])
def test_up_meets_the_finer_map_also_at_odd_sizes(source: int, target: int) -> None:
    pyramid = Pyramid((4, 6, 8, 10), (13, 9))
    _, height, width = pyramid.shapes[target]
    up = Up(pyramid.channels[source], pyramid.channels[target], (height, width), groups=2)
    assert up(torch.randn(2, *pyramid.shapes[source])).shape[1:] == pyramid.shapes[target]


def test_each_scale_is_the_sum_of_all_then_post_fused() -> None:
    pyramid = Pyramid((4, 6), (7, 7))
    fusion = Fusion(pyramid, groups=2, gain=0.3)
    fine, coarse = (torch.randn(2, *shape) for shape in pyramid.shapes)
    out = fusion([fine, coarse])
    torch.testing.assert_close(out[0], fusion.post[0](fine + fusion.paths[0][1](coarse)))
    torch.testing.assert_close(out[1], fusion.post[1](fusion.paths[1][0](fine) + coarse))


def test_one_scale_is_only_post_fused() -> None:
    fusion, z = Fusion(Pyramid((4,), (5, 5)), groups=2, gain=0.3), torch.randn(2, 4, 5, 5)
    assert [type(path) for path in fusion.paths[0]] == [nn.Identity]
    torch.testing.assert_close(fusion([z])[0], fusion.post[0](z))


def test_the_gain_is_the_weight_of_the_last_norm() -> None:
    fusion = Fusion(Pyramid((4, 6), (7, 7)), groups=2, gain=0.3)
    assert all(torch.equal(post[-1].weight, torch.full_like(post[-1].weight, 0.3)) for post in fusion.post)
