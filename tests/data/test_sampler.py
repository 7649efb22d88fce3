"""The order of samples: pure, complete, fairly dealt out."""

import numpy as np
import pytest

from jiio_lightning.data import DataError
from jiio_lightning.data.sampler import EvalBatches, TrainBatches

DATASET = range(103)


def rows(sampler) -> list[list[int]]:
    return [draw.rows.tolist() for draw in sampler]


def test_an_epoch_visits_each_sample_once():
    sampler = TrainBatches(DATASET, batch_size=10, seed=0)
    visited = rows(sampler)
    assert len(visited) == len(sampler) == 10 and {len(batch) for batch in visited} == {10}
    assert len(set(sum(visited, []))) == 100
    assert visited == rows(sampler)
    sampler.set_epoch(1)
    assert rows(sampler) != visited
    sampler.set_epoch(0)
    assert rows(sampler) == visited


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_processes_share_the_batches_of_one(world_size):
    """R processes with batches of B see together what one process with batches of R B sees."""
    one = TrainBatches(DATASET, 4 * world_size, seed=5)
    many = [TrainBatches(DATASET, 4, 5, rank, world_size) for rank in range(world_size)]
    one.set_epoch(3)
    for sampler in many:
        sampler.set_epoch(3)
    assert {len(sampler) for sampler in many} == {len(one)}
    for whole, *parts in zip(rows(one), *map(rows, many), strict=True):
        assert sorted(sum(parts, [])) == sorted(whole)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_sees_each_sample_once_unpadded(world_size):
    samplers = [EvalBatches(DATASET, 10, rank, world_size) for rank in range(world_size)]
    batches = [rows(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(part) for part in batches]
    assert sorted(sum(sum(batches, []), [])) == list(DATASET)
    sizes = [sum(map(len, part)) for part in batches]
    assert max(sizes) - min(sizes) <= 1


def test_evaluation_with_more_processes_than_samples():
    assert [rows(EvalBatches(range(2), 4, rank, 3)) for rank in range(3)] == [[[0]], [[1]], []]


def test_going_on_at_any_batch():
    """Epochs 0, 1, 2 ... are one stream; a run that has done so many batches sees the next ones."""
    sampler = TrainBatches(DATASET, 10, 0)
    stream = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        stream += rows(sampler)
    for done in (0, 1, 9, 10, 17, 20, 30):
        resumed = TrainBatches(DATASET, 10, 0, done=lambda done=done: done)
        assert rows(resumed) == stream[done : done + 10] and len(resumed) == 10


def test_draws_carry_their_epoch():
    sampler = TrainBatches(DATASET, 10, 0)
    sampler.set_epoch(4)
    assert {draw.epoch for draw in sampler} == {4}
    assert {draw.rows.dtype for draw in sampler} == {np.dtype(np.int64)}


def test_changing_a_draw_does_not_change_the_order():
    for sampler in (TrainBatches(DATASET, 10, 0), EvalBatches(DATASET, 10)):
        before = rows(sampler)
        for draw in sampler:
            draw.rows[:] = 0
        assert rows(sampler) == before


def test_batches_whose_gradients_make_one_step_are_those_of_a_larger_one():
    large, small = TrainBatches(DATASET, 20, seed=5), TrainBatches(DATASET, 10, seed=5, accumulated=2)
    found = rows(small)
    assert len(small) == len(found) == 10 and len(large) == 5  # of 103
    assert [first + second for first, second in zip(found[::2], found[1::2], strict=True)] == rows(large)


def test_less_than_a_batch_is_one_clear_error():
    with pytest.raises(DataError, match="103 samples, less than 2 batches of 60 for each of 1 processes"):
        TrainBatches(DATASET, 60, 0, accumulated=2)
    with pytest.raises(DataError, match="103 samples, less than one batch of 60 for each of 2 processes"):
        TrainBatches(DATASET, 60, 0, 0, 2)
