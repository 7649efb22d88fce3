"""When a run's result still holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments import record as module
from experiments.plan import Choice, Run
from experiments.record import Record, key

FIT = Run("fit", "fit", "tasks/a.yaml")


def test_the_key_follows_everything_that_decides_a_metric(runner, monkeypatch):
    root = runner.project
    first = key(FIT, root)
    assert key(Run("another name", "fit", "tasks/a.yaml"), root) == first, "a name decides nothing"
    others = [
        Run("fit", "test", "tasks/a.yaml"),
        Run("fit", "fit", "tasks/a.yaml", ("--seed_everything", "1")),
        Run("fit", "fit", "tasks/a.yaml", ("--solver", "conf/s.yaml")),
        Run("fit", "fit", "tasks/a.yaml", weights=FIT),
        Run("fit", "fit", "tasks/a.yaml", weights=Choice((FIT,), "val/error")),
    ]
    keys = [first, *(key(other, root) for other in others)]
    assert len(set(keys)) == len(keys)
    (root / "conf" / "s.yaml").write_text("steps: 4\n")
    assert all(key(run, root) != old for run, old in zip([FIT, *others], keys, strict=True)), "a fragment has changed"
    changed = key(FIT, root)
    monkeypatch.setattr(module, "code_version", lambda command: "other code")
    assert key(FIT, root) != changed


def test_a_missing_run_file_says_where_to_be(runner):
    with pytest.raises(FileNotFoundError, match="project's root"):
        key(Run("fit", "fit", "tasks/none.yaml"), runner.project)


def test_a_result_holds_only_for_the_data_that_it_was_made_with(runner, finish):
    finish(FIT)
    assert runner.record(FIT) is not None
    finish(FIT, data={str(runner.project / "no such set"): "0123"})
    assert runner.record(FIT) is None


def test_a_result_of_another_configuration_does_not_count(runner, finish):
    finish(FIT)
    (runner.project / "tasks" / "a.yaml").write_text("model: {width: 4}\n")
    assert runner.record(FIT) is None


@pytest.mark.parametrize(
    ("curve", "falls"),
    [
        ([(50, 2.0), (90, 1.0), (100, 0.96)], False),
        ([(50, 2.0), (90, 1.0), (100, 0.94)], True),
        ([(50, 2.0), (95, 1.0), (100, 0.99)], True),  # before the last tenth it was 2
        ([(100, 1.0)], None),
        ([], None),
    ],
)
def test_not_converged_is_five_per_cent_in_the_last_tenth(curve, falls):
    record = Record("r", "k", "c", {}, 0.0, 0, 100, curve, {}, 0, "cpu", {})
    assert record.still_falls is falls


def test_a_record_survives_its_file_and_a_broken_file_is_none(tmp_path):
    record = Record("r", "k", "c", {"a": 1.0}, 1.5, 7, 100, [[1, 2.0]], {"f": "s"}, 3, "cpu", {"commit": "x"})
    record.save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text()[:40])
    assert Record.load(tmp_path / "r.json") is None and Record.load(tmp_path / "none.json") is None


def test_a_record_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    record = Record("r", "k", "c", {"a": 1.0}, 1.5, 7, 100, [[1, 2.0]], {"f": "s"}, 3, "cpu", {"commit": "x"})
    record.save(tmp_path / "r.json")
    whole = Path.write_text

    def full_disk(path: Path, text: str) -> None:
        whole(path, text[:40])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        replace(record, seconds=9.0).save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record


def test_other_commands_do_not_decide_the_metrics_of_a_fit():
    fit, compare = (set(module.sources(command)) for command in ("fit", "compare"))
    commands = set((module.PACKAGE / "commands").glob("*.py"))
    assert commands and commands <= compare and not commands & fit and compare - commands == fit
    assert module.PACKAGE / "core" / "joint.py" in fit and module.LABORATORY / "baselines" / "autoencoding.py" in fit
