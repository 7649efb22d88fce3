"""Finished runs without running: a project of two files and a store of hand-made records."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.job import CHECKPOINT, RECORD
from experiments.plan import Budget, Choice, Run
from experiments.record import Record, key
from experiments.runner import KEY, Runner
from jiio_lightning.files import write_text


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner of a project with ``tasks/a.yaml``, which names a fragment."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text("solver: ../conf/s.yaml\nmodel: {width: 3}\n")
    (tmp_path / "conf" / "s.yaml").write_text("steps: 3\n")
    return Runner(tmp_path, tmp_path / "store", Budget.SMOKE)


@pytest.fixture
def finish(runner: Runner):
    """``finish(run, curve=..., steps=..., **metrics)`` writes the record that the run would have left."""

    def write(run: Run, curve=(), steps=100, data=None, seed=0, **metrics: float) -> None:
        provenance = {"commit": "c0ffee", "hardware": "a machine", "versions": {"torch": "2"}}
        named = {name.replace("__", "/"): value for name, value in metrics.items()}
        where = key(run, runner.project)
        weights = None if run.weights is None or isinstance(run.weights, Choice) else run.weights.name
        record = Record(
            *(run.name, where, "jiio ...", named, 1.0, 2**20, steps, list(curve), data or {}, seed, "smoke", provenance, weights)
        )
        record.save(runner.folder(run) / RECORD)
        write_text(runner.folder(run) / KEY, where)
        if run.command == "fit":
            write_text(runner.folder(run) / CHECKPOINT, "weights")

    return write
