"""What an attacker may do: exact projections, steps that suit the norm, random starts, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from jiio_lightning.attacks import ThreatModel
from jiio_lightning.randomness import sample_generators

THREATS = [ThreatModel(0.8, norm, box) for norm in ("l2", "linf") for box in (False, True)]
THREATS += [ThreatModel(0.2, "linf", True)]
each = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: f"{threat.norm}-{threat.eps}-{threat.pixel_box}")


def images() -> torch.Tensor:
    image = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return image.round(decimals=1)  # some pixels lie on the box


def far() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 6, dtype=torch.float64, generator=generator) * torch.logspace(-2, 1, 40).unsqueeze(1)


@each
def test_the_projection_is_the_nearest_allowed_perturbation(threat):
    """(x - P(x))^T (c - P(x)) <= 0 for allowed c, which are drawn without the projection."""
    image, x = images(), far()
    nearest = threat.projection(image)(x)
    threat.check(image, nearest)
    torch.testing.assert_close(threat.projection(image)(nearest), nearest, rtol=1e-12, atol=1e-13)
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        allowed = torch.randn(40, 6, dtype=torch.float64, generator=generator)
        if threat.pixel_box:
            allowed = (image + allowed).clamp(0, 1) - image
        allowed = allowed * (threat.eps / threat.length(allowed).unsqueeze(1)).clamp_max(1)  # 0 is inside: shrinking stays so
        assert float(((x - nearest) * (allowed - nearest)).sum(dim=1).max()) < 1e-10


def test_projections_by_hand():
    x = torch.tensor([[3.0, 4.0]])
    image = torch.tensor([[0.9, 0.1]])
    assert ThreatModel(1.0).projection(image)(x).tolist() == [pytest.approx([0.6, 0.8])]
    assert ThreatModel(0.5, "linf").projection(image)(x).tolist() == [[0.5, 0.5]]
    assert ThreatModel(0.5, "linf", True).projection(image)(x).tolist() == [pytest.approx([0.1, 0.5])]
    boxed = ThreatModel(0.5, "l2", True).projection(image)(x)  # the first element meets the box, the second the ball
    assert boxed.tolist() == [pytest.approx([0.1, math.sqrt(0.24)])]


@each
def test_random_starts_are_allowed_and_functions_of_seed_draw_and_sample(threat):
    image, index = images(), torch.arange(40)
    drawn = threat.draw(image, sample_generators(0, 3, index))
    threat.check(image, drawn)
    assert drawn.dtype == image.dtype and float(threat.length(drawn).max()) > 0.5 * threat.eps
    order = index.flip(0)
    torch.rand(7)  # the global generator has no part in it
    assert threat.draw(image[order], sample_generators(0, 3, order)).equal(drawn[order])
    assert not threat.draw(image, sample_generators(0, 4, index)).equal(drawn)


def test_a_draw_fills_the_ball():
    """The radius of a uniform draw in d dimensions has the mean d / (d + 1)."""
    threat = ThreatModel(2.0)
    drawn = threat.draw(torch.zeros(4000, 3), sample_generators(0, 0, torch.arange(4000)))
    assert float(threat.length(drawn).mean()) == pytest.approx(2 * 3 / 4, rel=0.02)
    assert float(drawn.mean(dim=0).abs().max()) < 0.06


@pytest.mark.parametrize("norm, wanted", [("l2", [-0.6, 0.8]), ("linf", [-1.0, 1.0])])
def test_the_steepest_step_of_a_norm(norm, wanted):
    rule, x = ThreatModel(1.0, norm).steepest(0.5), torch.zeros(1, 2)
    move, _ = rule.move(torch.tensor([[3.0, -4.0]]), rule.init(x), step=0, max_steps=10)
    assert move.tolist() == [pytest.approx([0.5 * part for part in wanted])]


@pytest.mark.parametrize("eps", [0.0, -1.0, math.inf, math.nan])
def test_an_eps_that_cannot_be_meant(eps):
    with pytest.raises(ValueError, match="needs eps > 0, in units of pixels"):
        ThreatModel(eps)


def test_an_unknown_norm():
    with pytest.raises(ValueError, match="norm is l2 or linf, got 'l1'"):
        ThreatModel(1.0, "l1")


@pytest.mark.parametrize(
    "threat, delta, complaint",
    [
        (ThreatModel(1.0), [0.9, 0.9], "left its ball: l2 norm 1.27"),
        (ThreatModel(0.5, "linf"), [0.1, 0.6], "left its ball: linf norm 0.6"),
        (ThreatModel(1.0, "l2", True), [-0.6, 0.1], "left the pixel box"),
        (ThreatModel(1.0), [math.nan, 0.0], "not finite"),
    ],
)
def test_what_is_not_allowed_is_refused(threat, delta, complaint):
    with pytest.raises(ValueError, match=complaint):
        threat.check(torch.full((1, 2), 0.5), torch.tensor([delta]))
