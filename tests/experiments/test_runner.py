"""What is run, in which order, and what happens when something is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.job import ERROR, json_metrics, learning_curve
from experiments.plan import Budget, Cell, Choice, File, Run, Table
from experiments.record import Record, key
from experiments.runner import KEY, Missing, Runner

ROOT = Path(__file__).parents[2]
FITS = tuple(Run(f"fit{rate}", "fit", "tasks/a.yaml", ("--model.width", rate)) for rate in "123")
BEST = Choice(FITS, "val/error")
TEST = Run("test", "test", "tasks/a.yaml", weights=BEST)


def test_each_run_comes_after_what_it_needs_and_once():
    cells = tuple(Cell(row, "c", (TEST,), "m") for row in "ab")
    assert Table("t", "", "", "", cells).runs() == [*FITS, TEST]


def test_the_best_trial_is_chosen_by_its_validation_figure(runner, finish):
    for fit, error in zip(FITS, (0.3, 0.1, float("nan")), strict=True):
        finish(fit, val__error=error)
    assert runner.chosen(BEST) == FITS[1]
    assert runner.chosen(Choice(FITS, "val/error", "high")) == FITS[0]
    assert runner.checkpoint(BEST) == runner.folder(FITS[1]) / "last.ckpt"


def test_an_unfinished_trial_is_waited_for_and_a_failed_one_is_not(runner, finish):
    finish(FITS[0], val__error=0.3)
    finish(FITS[1], val__error=0.2)
    with pytest.raises(Missing, match="fit3 is not finished"):
        runner.chosen(BEST)
    folder = runner.folder(FITS[2])
    folder.mkdir(parents=True)
    (folder / ERROR).write_text("SolveError: diverged")
    (folder / KEY).write_text(key(FITS[2], runner.project))
    assert runner.chosen(BEST) == FITS[1]


def test_a_file_of_another_run_is_laid_where_it_is_expected(runner, finish):
    maker = Run("maker", "fit", "tasks/a.yaml")
    file = File("runs/x/features.pt", maker, "features.pt")
    reader = Run("reader", "test", "tasks/a.yaml", files=(file,))
    assert Table("t", "", "", "", (Cell("r", "c", (reader,), "m"),)).runs() == [maker, reader]
    with pytest.raises(Missing, match="maker is not finished"):
        runner._lay_out(file, runner.folder(reader))
    finish(maker)
    with pytest.raises(Missing, match="maker left no features.pt"):
        runner._lay_out(file, runner.folder(reader))
    (runner.folder(maker) / "features.pt").write_text("weights")
    runner._lay_out(file, runner.folder(reader))
    runner._lay_out(file, runner.folder(reader))
    assert (runner.folder(reader) / "runs/x/features.pt").read_text() == "weights"


def test_a_timed_run_is_alone_and_others_pass_it(runner, monkeypatch):
    """While something runs it waits; once it runs nothing is started beside it."""
    runner.jobs = 2
    first, timed, last = (
        Run("first", "fit", "tasks/a.yaml"),
        Run("timed", "fit", "tasks/a.yaml", timed=True),
        Run("last", "test", "tasks/a.yaml"),
    )
    monkeypatch.setattr(runner, "_launch", lambda run: run)
    waiting, active = [first, timed, last], {}
    runner._start(waiting, active, None)
    assert list(active) == [first, last] and waiting == [timed]
    active.clear()
    waiting = [timed, last]
    runner._start(waiting, active, None)
    assert list(active) == [timed] and waiting == [last]


def test_the_learning_curve_goes_on_after_a_resume(tmp_path):
    for number, rows in enumerate(("0,,5.0\n10,0.4,\n", "20,0.3,\n20,,4.0\n")):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "metrics.csv").write_text("step,val/error,train/cost\n" + rows)
    assert learning_curve(tmp_path, "val/error") == [(11, 0.4), (21, 0.3)]


def test_figures_of_a_json_file(tmp_path):
    (tmp_path / "comparison.json").write_text('{"speedup": 3.5, "at": {"joint_40": {"seconds": 2}}, "flag": true, "list": [1]}')
    assert json_metrics(tmp_path, "compare") == {"compare/speedup": 3.5, "compare/at/joint_40/seconds": 2.0}
    assert json_metrics(tmp_path, "test") == {}


FAST = (
    "--trainer.max_steps",
    "12",
    "--trainer.val_check_interval",
    "4",
    "--solver.train.max_steps",
    "4",
    "--solver.test.max_steps",
    "4",
)
REAL_FIT = Run("digits", "fit", "tasks/digits.yaml", FAST)
REAL_TEST = Run("digits_test", "test", "tasks/digits.yaml", ("--solver.test.max_steps", "4"), weights=REAL_FIT)


@pytest.mark.slow
def test_real_runs_are_done_once_and_a_failure_stops_only_what_needs_it(tmp_path):
    runner = Runner(ROOT, tmp_path, Budget.SMOKE)
    bad = Run("bad", "fit", "tasks/digits.yaml", ("--model.nonsense", "1"))
    needs_bad = Run("needs_bad", "test", "tasks/digits.yaml", weights=bad)
    runner.execute([bad, needs_bad, REAL_FIT, REAL_TEST])
    assert set(runner.failures) == {"bad", "needs_bad"} and "not finished" in runner.failures["needs_bad"]
    fit, test = runner.record(REAL_FIT), runner.record(REAL_TEST)
    assert fit.steps == 12 and [step for step, _ in fit.curve] == [4, 8, 12] and fit.data and fit.peak_memory > 2**27
    assert fit.seed == 0 and 0 < test.metrics["test/error"] < 2 and "--ckpt_path" in test.command
    runner.execute([REAL_FIT, REAL_TEST])
    assert runner.record(REAL_FIT) == fit and runner.record(REAL_TEST) == test


SCRIPT = """
from pathlib import Path
from experiments.plan import Budget
from experiments.runner import Runner
from tests.reproduce.test_runner import LONG
Runner(Path(), Path({store!r}), Budget.SMOKE).execute([LONG])
"""
LONG = Run("long", "fit", "tasks/digits.yaml", ("--trainer.max_steps", "30", *FAST[2:]))


@pytest.mark.slow
def test_an_interrupted_fit_goes_on(tmp_path):
    """SIGINT in the middle, as Ctrl-C sends it to the whole group; the second call ends as an undisturbed run does."""
    script = SCRIPT.format(store=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    log = tmp_path / "long" / "log.txt"
    while not (log.is_file() and " 8/30" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    assert not (tmp_path / "long" / "record.json").exists() and list((tmp_path / "long").rglob("last.ckpt"))
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    record = Record.load(tmp_path / "long" / "record.json")
    assert record.steps == 30 and "--ckpt_path" in record.command
    undisturbed = Runner(ROOT, tmp_path / "other", Budget.SMOKE)
    undisturbed.execute([LONG])
    assert undisturbed.record(LONG).metrics["val/error"] == record.metrics["val/error"]
