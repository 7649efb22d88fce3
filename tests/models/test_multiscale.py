from __future__ import annotations

import pytest
import torch

from jiio_lightning.models.multiscale import Pyramid

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
