"""The injected penalty and the random numbers behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jiio_lightning.callbacks import JacobianRegularization
from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.randomness import sample_generators
from tests.conftest import REPO, metrics
from tests.tasks.test_generation import batch, inject, task


def draws(seed: int, step: int, index: list[int]) -> torch.Tensor:
    return torch.stack([torch.randn(3, generator=generator) for generator in sample_generators(seed, step, torch.tensor(index))])


def test_the_random_numbers_are_a_pure_function_of_seed_step_and_sample():
    given = draws(0, 5, [7, 3, 9])
    torch.manual_seed(123)
    assert draws(0, 5, [7, 3, 9]).equal(given)
    assert draws(0, 5, [9, 7, 3]).equal(given[[2, 0, 1]]), "a sample's numbers do not depend on its place"
    assert draws(0, 5, [3]).equal(given[1:2]), "nor on its batch mates"
    everything = torch.cat([given, draws(1, 5, [7, 3, 9]), draws(0, 6, [7, 3, 9])])
    assert len({tuple(row.tolist()) for row in everything}) == 9
    assert torch.rand(1).equal(torch.manual_seed(123) and torch.rand(1)), "the global generator is left alone"


def test_the_penalty_is_that_of_the_core_at_the_end_point():
    model, given = task(), batch()
    inject(model)
    problem = model.problem(given)
    solution = model.inner(problem, model.start(given))
    watch = JacobianRegularization(0.3, probes=2, at="end").watch(4, given.index, 30)
    assert not watch.observers
    probes = []
    for generator in sample_generators(0, 4, given.index):
        torch.rand((), generator=generator)  # the place on the trajectory is drawn first
        probes.append(torch.randn(2, model.net.hidden, generator=generator))
    wanted = 0.3 * jacobian_penalty(problem.f, solution.v.z, solution.v.x, torch.stack(probes, dim=1))
    assert watch.penalty(problem, solution).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_on_the_trajectory_each_sample_has_its_own_iterate():
    model, given = task(), batch(8)
    inject(model)
    problem = model.problem(given)
    seen = []
    watch = JacobianRegularization(1.0).watch(0, given.index, 30)
    model.injected.train(problem, model.start(given), [*watch.observers, lambda now: seen.append(now.value)])
    chosen = [next(k for k, value in enumerate(seen) if value[i].equal(watch.iterate.value[i])) for i in range(8)]
    assert chosen == watch.iterate.chosen.tolist() and len(set(chosen)) > 3 and min(chosen) >= 1


def test_zero_leaves_it_out():
    model, given = task(), batch()
    inject(model)
    problem = model.problem(given)
    watch = JacobianRegularization(0.0).watch(0, given.index, 30)
    assert not watch.observers and watch.penalty(problem, model.inner(problem, model.start(given))) == 0


def test_a_trainer_takes_its_penalty_with_it():
    model = task()
    regularization = JacobianRegularization(1.0)
    regularization.setup(None, model, "fit")
    assert model.regularizer is regularization
    regularization.teardown(None, model, "fit")
    assert model.regularizer.watch(0, batch().index, 30).penalty(None, None) is None


def test_every_third_step_has_one():
    model, given = task(), batch()
    inject(model)
    problem = model.problem(given)
    solution = model.inner(problem, model.start(given))
    regularization = JacobianRegularization(1.0, at="end", every=3)
    penalties = [regularization.watch(step, given.index, 30).penalty(problem, solution) for step in range(7)]
    assert [penalty is not None and penalty.item() > 0 for penalty in penalties] == [True, False, False] * 2 + [True]


def test_the_logged_penalty_is_the_last_one(jiio):
    """Not the 0 of a step without one: it would say of a net at the brink that its hinge rests."""
    given = ("--trainer.max_steps", 6, "--trainer.limit_val_batches", 0, "--trainer.log_every_n_steps", 2, "--jacobian.every", 4)
    assert jiio("fit", "--config", "tiny.yaml", *given) == 0
    first, second, third = (float(row["train/jacobian"]) for row in metrics(Path("runs/tiny")))
    assert 0 < first == second != third > 0, "of the steps 1, 1 and 5"


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("jacobian.coefficient", -1, "jacobian.coefficient: -1 does not conform to restriction v>=0"),
        ("jacobian.seed", -1, "jacobian.seed: -1 does not conform to restriction v>=0"),
        ("jacobian.probes", 0, "jacobian.probes: 0 does not conform to restriction v>0"),
        ("model.penalty", -1, "model.penalty: -1 does not conform to restriction v>=0"),
    ],
)
def test_a_number_out_of_its_range_is_one_line(jiio, capsys, option, value, message):
    """At the top of a run file, and within one of the classes that it names."""
    assert jiio("fit", "--config", REPO / "tasks/digits_meta.yaml", f"--{option}", value) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
