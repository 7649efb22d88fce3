"""The drift of the dual-reuse gradient: none at a tight solution, some at a loose one, and training is left as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.benchmarks import DualDrift
from tests.tasks.test_generation import batch, inject, task


def drift(steps: int) -> dict[str, float]:
    model, logged = task().train(), {}
    inject(model, steps=steps)
    model.log_dict = lambda metrics: logged.update({name: float(value) for name, value in metrics.items()})
    DualDrift(every=5).on_train_batch_start(SimpleNamespace(global_step=10), model, batch(), 0)
    assert all(weight.grad is None for weight in model.parameters())
    return logged


def test_a_tight_solve_has_the_refined_gradient():
    logged = drift(200)
    assert logged["train/dual_cosine"] == pytest.approx(1, abs=1e-3)
    assert logged["train/dual_length"] == pytest.approx(1, abs=1e-2)


def test_a_loose_solve_has_not():
    logged = drift(3)
    assert logged["train/dual_cosine"] < 0.99 and logged["train/dual_length"] < 0.95, "mu starts at 0 and is still too short"


def test_it_measures_every_so_many_steps():
    model, logged = task().train(), []
    inject(model)
    model.log_dict = logged.append
    DualDrift(every=5).on_train_batch_start(SimpleNamespace(global_step=11), model, batch(), 0)
    assert logged == []
