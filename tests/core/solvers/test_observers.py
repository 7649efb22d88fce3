from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import Joint
from jiio_lightning.core.solvers import RandomIterate, Snapshot, Trace
from jiio_lightning.core.steps import Plain
from tests.core.modes import NoSynchronisation
from tests.core.problems import LinearQuadratic


def snapshot(step: int, batch: int, residual: Tensor | None = None) -> Snapshot:
    """An iterate whose value is its step."""
    residual = torch.ones(batch, 3) if residual is None else residual
    return Snapshot(step, torch.full((batch, 2), float(step)), residual, torch.ones(batch))


def kept(observer: RandomIterate) -> Tensor:
    assert observer.value is not None
    return observer.value[:, 0].long()


def test_the_trace_keeps_the_iterates_and_their_times() -> None:
    trace = Trace()
    for step in range(3):
        trace(snapshot(step, 2))
    assert [now.step for now in trace.snapshots] == [0, 1, 2]
    assert len(trace.seconds) == 3 and trace.seconds == sorted(trace.seconds) and trace.seconds[0] >= 0


def test_the_trace_is_not_overwritten_by_the_solve() -> None:
    linear, trace, copies = LinearQuadratic.random(), Trace(), []
    Joint(Plain(linear.step()), max_steps=6)(
        linear.problem(), linear.start(), (trace, lambda now: copies.append(now.value.clone()))
    )
    assert all(torch.equal(now.value, copy) for now, copy in zip(trace.snapshots, copies, strict=True))


def test_the_random_iterate_is_uniform_and_never_the_start() -> None:
    batch, max_steps = 20_000, 11
    observer = RandomIterate(torch.rand(batch), max_steps)
    for step in range(max_steps):
        observer(snapshot(step, batch))
    counts = torch.bincount(kept(observer), minlength=max_steps)
    assert int(counts[0]) == 0
    expected = batch / (max_steps - 1)
    chi_square = float(((counts[1:] - expected) ** 2 / expected).sum())
    assert chi_square < 27.9  # 9 degrees of freedom: one in a thousand


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2**-24])
def test_the_ends_of_the_draw_are_the_first_step_and_the_last(draw: float) -> None:
    observer = RandomIterate(torch.tensor([draw]), 40)
    for step in range(40):
        observer(snapshot(step, 1))
    assert kept(observer).tolist() == [1 if draw == 0 else 39]


def test_a_budget_of_one_has_nothing_but_the_start() -> None:
    observer = RandomIterate(torch.rand(3), 1)
    observer(snapshot(0, 3))
    assert kept(observer).tolist() == [0, 0, 0]


def test_a_budget_of_two_keeps_the_second() -> None:
    observer = RandomIterate(torch.rand(3), 2)
    for step in range(2):
        observer(snapshot(step, 3))
    assert kept(observer).tolist() == [1, 1, 1]


def test_what_is_not_finite_is_never_kept() -> None:
    """A sample that fails keeps its last finite iterate, also when it fails at the first step."""
    observer = RandomIterate(torch.tensor([0.99, 0.99, 0.0]), 10)
    for step in range(10):
        residual = torch.ones(3, 3)
        residual[0] = torch.nan if step >= 4 else 1.0
        residual[2] = torch.inf if step >= 1 else 1.0
        observer(snapshot(step, 3, residual))
    assert kept(observer).tolist() == [3, 9, 0]


def test_where_the_solve_stops_early_the_draw_is_the_last_iterate() -> None:
    observer = RandomIterate(torch.tensor([0.05, 0.5, 0.95]), 21)
    for step in range(8):
        observer(snapshot(step, 3))
    assert kept(observer).tolist() == [2, 7, 7]


def test_it_sees_a_real_solve_without_synchronisation() -> None:
    linear, trace = LinearQuadratic.random(), Trace()
    observer, problem, start = RandomIterate(torch.rand(4), 12), linear.problem(), linear.start()
    with NoSynchronisation():
        Joint(max_steps=12)(problem, start, (observer, trace))
    assert observer.value is not None
    for row, step in enumerate(observer.chosen.tolist()):
        assert torch.equal(observer.value[row], trace.snapshots[step].value[row])
