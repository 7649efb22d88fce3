"""Finished runs without running: a project of two files and a store of hand-made records."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.job import RECORD
from experiments.plan import Budget, Run
from experiments.record import Record, key
from experiments.runner import KEY, Runner


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
        figures = {name.replace("__", "/"): value for name, value in metrics.items()}
        where = key(run, runner.project)
        record = Record(
            run.name, where, "jiio ...", figures, 1.0, 2**20, steps, list(curve), data or {}, seed, "smoke", provenance
        )
        record.save(runner.folder(run) / RECORD)
        (runner.folder(run) / KEY).write_text(where)
        if run.command == "fit":
            (runner.folder(run) / "last.ckpt").write_text("weights")

    return write
