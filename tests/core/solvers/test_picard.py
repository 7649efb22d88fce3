from __future__ import annotations

import torch

from jiio_lightning.core.solvers import FixedPoint, Picard


def test_it_is_the_plain_iteration() -> None:
    v, image = torch.randn(2, 3), torch.randn(2, 3)
    assert Picard().step(v, image, None)[0] is image


def test_damping_goes_a_share_of_the_way() -> None:
    v, image = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(Picard(0.3).step(v, image, None)[0], 0.7 * v + 0.3 * image)


def test_damping_solves_a_map_that_oscillates() -> None:
    plain = FixedPoint(Picard(), 60)(lambda v: 1.0 - 1.2 * v, torch.zeros(1, 1))
    damped = FixedPoint(Picard(0.5), 60)(lambda v: 1.0 - 1.2 * v, torch.zeros(1, 1))
    assert float(plain.residual) > 0.1
    torch.testing.assert_close(damped.value, torch.tensor([[1 / 2.2]]), rtol=1e-10, atol=0)
