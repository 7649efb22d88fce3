"""The schedule of a run that goes on is the present run's."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.tasks.optimiser import OneCycle


def made(peak: float, steps: int) -> tuple[torch.optim.Adam, OneCycle]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=peak)
    return optimizer, OneCycle(optimizer, peak, total_steps=steps)


def rates(optimizer: torch.optim.Adam, schedule: OneCycle, steps: int) -> list[tuple[float, float]]:
    """Learning rate and momentum of each step."""
    found = []
    for _ in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("peak", "steps"), [(0.1, 10), (0.1, 20), (0.3, 20)])
def test_a_longer_run_goes_on_as_one_of_that_length(peak, steps, capsys):
    before = made(0.1, 10)
    rates(*before, 4)
    after = made(peak, steps)
    for part, earlier in zip(after, before, strict=True):
        part.load_state_dict(earlier.state_dict())
    whole = rates(*made(peak, steps), steps)
    assert rates(*after, steps - 4) == ([*map(pytest.approx, whole[4:])] if steps > 10 else whole[4:])
