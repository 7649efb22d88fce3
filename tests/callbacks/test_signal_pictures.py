"""Pictures of a signal."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.callbacks.signal_pictures import comparison


@pytest.mark.parametrize(("occupancy", "ends"), [(False, (-1, 1)), (True, (0, 1))])
def test_grey_values_have_one_scale(occupancy, ends):
    target, made = torch.rand(8, 8, 1), torch.full((8, 8, 1), 0.5)
    target_axes, made_axes, error_axes, _ = comparison(target, made, occupancy).axes
    assert [axes.images[0].get_clim() for axes in (target_axes, made_axes)] == [ends, ends]
    assert error_axes.images[0].get_clim() == (0, pytest.approx((target - made).abs().max().item()))
