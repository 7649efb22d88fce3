from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.solvers import CostResidualTrade, Last, LowestCost, LowestResidual, Selection, Snapshot

NAN = torch.nan


def snapshot(step: int, residual: list[float], cost: list[float]) -> Snapshot:
    """Its value is its step, in every sample; the residual has a second, smaller column."""
    worst = torch.tensor(residual)
    return Snapshot(step, torch.full((len(cost), 2), float(step)), torch.stack([worst, 0.5 * worst], dim=1), torch.tensor(cost))


def choose(selection: Selection, sequence: list[tuple[list[float], list[float]]]) -> list[int]:
    """Which step each sample ends with."""
    best = None
    for step, (residual, cost) in enumerate(sequence):
        best = selection.better(best, snapshot(step, residual, cost))
    assert best is not None
    return [int(step) for step in best.value[:, 0]]


SEQUENCE = [  # residuals and costs of two samples
    ([1.0, 1.0], [5.0, 5.0]),
    ([0.3, 0.9], [4.0, 1.0]),
    ([0.5, 0.2], [2.0, 3.0]),
    ([0.4, 0.8], [3.0, 4.0]),
]


@pytest.mark.parametrize(
    ("selection", "expected"), [(Last(), [3, 3]), (LowestResidual(), [1, 2]), (LowestCost(), [2, 1])], ids=lambda v: str(v)
)
def test_each_sample_is_chosen_by_itself(selection: Selection, expected: list[int]) -> None:
    assert choose(selection, SEQUENCE) == expected


def test_the_best_carries_its_own_residual_and_cost() -> None:
    best = None
    for step, (residual, cost) in enumerate(SEQUENCE):
        best = LowestCost().better(best, snapshot(step, residual, cost))
    assert best is not None
    assert best.cost.tolist() == [2.0, 1.0] and best.residual[:, 0].tolist() == [0.5, 0.9]


@pytest.mark.parametrize("selection", [Last(), LowestResidual(), LowestCost(), CostResidualTrade()])
def test_what_is_not_finite_is_never_accepted(selection: Selection) -> None:
    sequence = [([1.0, 1.0], [5.0, 5.0]), ([0.5, NAN], [4.0, 1.0]), ([NAN, 0.5], [0.0, NAN]), ([torch.inf] * 2, [-torch.inf] * 2)]
    assert choose(selection, sequence) == [1, 0]


@pytest.mark.parametrize("selection", [Last(), LowestResidual(), LowestCost(), CostResidualTrade(warmup=0)])
def test_a_start_that_is_not_finite_is_replaced_by_the_first_that_is(selection: Selection) -> None:
    assert choose(selection, [([NAN], [NAN]), ([9.0], [9.0])]) == [1]


def test_a_tie_keeps_the_earlier() -> None:
    sequence = [([1.0], [1.0]), ([1.0], [1.0])]
    assert choose(LowestCost(), sequence) == choose(LowestResidual(), sequence) == [0]
    assert choose(Last(), sequence) == [1]


# A.2 as released: the first ten; then a lower residual, or a lower cost at a residual below 1.3 of the best's.


def trade(*pairs: tuple[float, float]) -> int:
    """The step that the trade ends with, after a warm-up of two; pairs of residual and cost."""
    return choose(CostResidualTrade(warmup=2, slack=1.3), [([r], [c]) for r, c in pairs])[0]


def test_the_trade_accepts_the_first_iterates_unseen() -> None:
    assert trade((0.1, 0.1), (9.0, 9.0)) == 1
    assert trade((0.1, 0.1), (9.0, 9.0), (10.0, 10.0)) == 1


def test_the_trade_accepts_a_lower_residual_at_any_cost() -> None:
    assert trade((1.0, 1.0), (1.0, 1.0), (0.99, 50.0)) == 2


def test_the_trade_accepts_a_lower_cost_within_the_slack_only() -> None:
    assert trade((1.0, 1.0), (1.0, 1.0), (1.29, 0.9)) == 2
    assert trade((1.0, 1.0), (1.0, 1.0), (1.31, 0.0)) == 1
    assert trade((1.0, 1.0), (1.0, 1.0), (1.29, 1.0)) == 1


def test_the_trade_compares_with_the_last_accepted() -> None:
    """The slack may be used again and again: 1.2 of 1.2 is accepted."""
    assert trade((1.0, 1.0), (1.0, 1.0), (1.2, 0.9), (1.44, 0.8)) == 3
    assert trade((1.0, 1.0), (1.0, 1.0), (1.2, 0.9), (1.1, 5.0)) == 3


def test_the_warmup_is_ten_unless_told() -> None:
    falling = [([1.0 + step], [1.0 + step]) for step in range(14)]
    assert choose(CostResidualTrade(), falling) == [9]


def test_the_worst_residual_counts() -> None:
    def rows(first: float, second: float) -> Tensor:
        return torch.tensor([[first, second]])

    a = Snapshot(0, torch.zeros(1, 1), rows(0.5, 0.1), torch.ones(1))
    b = Snapshot(1, torch.ones(1, 1), rows(0.1, 0.6), torch.ones(1))
    assert float(LowestResidual().better(a, b).value) == 0.0
