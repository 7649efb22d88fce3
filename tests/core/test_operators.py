"""Measurement operators: linear, with the adjoint that autograd gives, and random only through their generators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.operators import (
    Downsampling,
    GaussianBlur,
    GaussianNoise,
    Identity,
    Measurement,
    Operator,
    PixelMask,
    SquareMask,
)

OPERATORS = {
    "identity": Identity(),
    "square": SquareMask(),
    "pixels": PixelMask(keep=0.3),
    "blur": GaussianBlur(sigma=0.7),
    "down": Downsampling(factor=2),
    "noise": GaussianNoise(std=0.4),
    "noisy blur": GaussianNoise(std=0.1, of=GaussianBlur(sigma=0.7)),
    "noisy mask": GaussianNoise(std=0.1, of=SquareMask()),
    "noisy small": GaussianNoise(std=0.1, of=Downsampling(factor=2)),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def images(batch: int = 5, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    return 2 * torch.rand(batch, channels, height, width) - 1


def generators(seeds: range | list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def measured(operator: Operator, image: Tensor) -> Measurement:
    return operator(image, generators(range(len(image))))


@each_operator
def test_a_is_linear(operator: Operator) -> None:
    apply = measured(operator, images()).apply
    one, other = torch.randn(2, 5, 3, 12, 16)
    torch.testing.assert_close(apply(2 * one - 3 * other), 2 * apply(one) - 3 * apply(other), rtol=1e-10, atol=1e-12)


@each_operator
def test_autograd_gives_the_adjoint(operator: Operator) -> None:
    """<A u, v> = <u, A^T v>."""
    measurement = measured(operator, images())
    u, v = torch.randn(5, 3, 12, 16, requires_grad=True), torch.randn_like(measurement.y)
    image = measurement.apply(u)
    assert image.shape == measurement.y.shape
    (pulled,) = torch.autograd.grad(image, u, v)
    left, right = ((a * b).detach().flatten(1).sum(dim=1) for a, b in ((image, v), (u, pulled)))
    assert left.abs().min() > 1e-3
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-10)


@each_operator
def test_a_sample_does_not_depend_on_its_batch(operator: Operator) -> None:
    image, order = images(), [3, 0, 2]
    whole, part = measured(operator, image), operator(image[order], generators(order))
    probe = torch.randn_like(image)
    for all_of_it, some in ((whole.y, part.y), (whole.shown, part.shown), (whole.apply(probe), part.apply(probe[order]))):
        torch.testing.assert_close(all_of_it[order], some, rtol=1e-12, atol=1e-12)
    again = measured(operator, image)
    assert again.y.equal(whole.y) and again.shown.equal(whole.shown)


@each_operator
def test_the_measurement_is_shown_as_an_image(operator: Operator) -> None:
    image = images()
    assert measured(operator, image).shown.shape == image.shape


@each_operator
def test_the_draw_is_the_same_in_single_precision(operator: Operator) -> None:
    image = images()
    single, double = measured(operator, image.float()), measured(operator, image)
    assert single.y.dtype == torch.float32
    torch.testing.assert_close(single.y.double(), double.y, rtol=1e-5, atol=1e-6)


def test_without_noise_y_is_a_times_the_image() -> None:
    image = images()
    for name in ("identity", "square", "pixels", "blur", "down"):
        measurement = measured(OPERATORS[name], image)
        torch.testing.assert_close(measurement.apply(image), measurement.y, rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 20), (28, 28, 9), (8, 8, 3), (12, 16, 4), (2, 2, 1)])
def test_the_hole_is_a_square_of_20_in_64(height: int, width: int, side: int) -> None:
    image = images(40, 3, height, width)
    measurement = measured(SquareMask(), image)
    assert measurement.seen is not None
    hole = ~measurement.seen[:, 0]
    assert (hole.sum(dim=(1, 2)) == side**2).all()
    assert (hole.any(dim=2).sum(dim=1) == side).all() and (hole.any(dim=1).sum(dim=1) == side).all()
    unseen = ~measurement.seen.expand_as(image)
    assert (measurement.y[unseen] == 0).all() and measurement.y[~unseen].equal(image[~unseen])
    assert measurement.shown.equal(measurement.y)


def test_the_hole_is_anywhere_inside_with_equal_chances() -> None:
    """A hole of 1 in 4x4: 16 positions, 4800 draws, chi-squared with 15 degrees of freedom below its 99.9 % point, 37.7."""
    seen = measured(SquareMask(share=0.25), images(4800, 1, 4, 4)).seen
    assert seen is not None
    counts = (~seen).sum(dim=0).flatten().double()
    assert float(((counts - 300).square() / 300).sum()) < 37.7


def test_a_share_of_the_pixels_is_kept_in_all_channels() -> None:
    image = images(200, 3, 10, 10)
    measurement = measured(PixelMask(keep=0.3), image)
    assert measurement.seen is not None
    assert (measurement.seen.flatten(1).sum(dim=1) == 30).all()
    assert ((measurement.y != 0) == measurement.seen).all()
    often = measurement.seen.double().mean(dim=0).flatten()
    assert (often - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 200)


@pytest.mark.parametrize("std", [0.2, 0.4])
def test_the_noise_has_the_stated_deviation(std: float) -> None:
    """Of 40,000 draws: the standard deviation to 5 of its standard errors, mean 0, and no sample like another."""
    image = images(16, 1, 50, 50)
    noise = measured(GaussianNoise(std), image).y - image
    count = noise.numel()
    assert abs(float(noise.std()) / std - 1) < 5 / math.sqrt(2 * count)
    assert abs(float(noise.mean())) < 5 * std / math.sqrt(count)
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(16)
    assert correlation.abs().max() < 5 / math.sqrt(2500)


def test_noise_on_another_operator_adds_to_its_measurement() -> None:
    image = images()
    for name, of in (("noisy blur", GaussianBlur(0.7)), ("noisy small", Downsampling(2))):
        noisy, clean = measured(OPERATORS[name], image), measured(of, image)
        gap = noisy.y - clean.y
        assert 0.08 < float(gap.std()) < 0.12
        torch.testing.assert_close(noisy.apply(image), clean.y, rtol=0, atol=0)


def test_a_noisy_hole_stays_empty() -> None:
    image = images()
    measurement = measured(OPERATORS["noisy mask"], image)
    assert measurement.seen is not None
    gap = measurement.y - measurement.apply(image)
    hole = ~measurement.seen.expand_as(image)
    assert (measurement.shown[hole] == 0).all() and (gap[hole] == 0).all() and (gap[~hole] != 0).all()


def test_blur_is_the_gaussian_written_out() -> None:
    """The response to a point far from the border, and a constant image unchanged, at the mirrored border too."""
    point = torch.zeros(1, 1, 15, 15)
    point[0, 0, 7, 7] = 1
    blur = measured(GaussianBlur(sigma=1.3), point)
    offset = torch.arange(15) - 7.0
    weights = torch.exp(-(offset**2) / (2 * 1.3**2)) * (offset.abs() <= 4)
    weights /= weights.sum()
    torch.testing.assert_close(blur.y[0, 0], weights[:, None] * weights, rtol=1e-6, atol=1e-9)
    constant = torch.full((1, 1, 15, 15), 0.3)
    torch.testing.assert_close(blur.apply(constant), constant, rtol=1e-6, atol=1e-9)


def test_downsampling_averages_blocks_and_shows_them() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    measurement = measured(Downsampling(2), image)
    assert measurement.y[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert measurement.shown[0, 0, 0].tolist() == [2.5, 2.5, 4.5, 4.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SquareMask(1.0), "0 < share < 1"),
        (lambda: PixelMask(0.0), "0 < keep < 1"),
        (lambda: GaussianNoise(0.0), "std > 0"),
        (lambda: GaussianBlur(-1.0), "sigma > 0"),
        (lambda: Downsampling(1), "at least 2"),
        (lambda: measured(GaussianBlur(5.0), images()), "lower sigma or radius"),
        (lambda: measured(Downsampling(5), images()), "does not divide images of 12x16"),
        (lambda: Identity()(images(), generators(range(2))), "one generator for each image, got 2 for 5"),
        (lambda: measured(Identity(), images()[0]), r"takes images \(B, C, H, W\)"),
    ],
)
def test_bad_input_is_one_clear_error(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("mask", [SquareMask(0.99), PixelMask(0.01), PixelMask(0.99)], ids=["no pixel", "none", "all"])
def test_a_mask_that_hides_all_or_none_is_refused(mask: Operator) -> None:
    """The error in its hole, or around it, would be 0 / 0."""
    with pytest.raises(ValueError, match="hides all or none of 4x4 pixels"):
        measured(mask, images(height=4, width=4))
