"""What is run, in which order, and what happens when something is missing or the program is ended."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.executor import _alone
from experiments.job import CHECKPOINT, RECORD, Job, json_metrics, learning_curve
from experiments.plan import Budget, Cell, Choice, File, Run, Table
from experiments.record import Record
from experiments.runner import Missing, Runner
from jiio_lightning.files import write_text

ROOT = Path(__file__).parents[2]
FITS = tuple(Run(f"fit{rate}", "fit", "tasks/a.yaml", ("--model.width", rate)) for rate in "123")
BEST = Choice(FITS, "val/error")
TEST = Run("test", "test", "tasks/a.yaml", weights=BEST)


def test_each_run_comes_after_what_it_needs_and_once():
    cells = tuple(Cell(row, "c", (TEST,), "m") for row in "ab")
    assert Table("t", "", "", "", cells).runs() == [*FITS, TEST]


def test_the_best_trial_is_chosen_by_its_validation_metric(runner, finish):
    for fit, error in zip(FITS, (0.3, 0.1, float("nan")), strict=True):
        finish(fit, val__error=error)
    assert runner.chosen(BEST) == FITS[1]
    assert runner.chosen(Choice(FITS, "val/error", "high")) == FITS[0]
    job = runner._job(TEST)
    assert job.weights == "fit2" and job.arguments[-2:] == ["--ckpt_path", str(runner.folder(FITS[1]) / CHECKPOINT)]


def test_a_trial_that_failed_is_out_of_the_choice(runner, finish):
    with pytest.raises(Missing, match="fit1, fit2, fit3 is not finished"):
        runner.chosen(BEST)
    finish(FITS[2], val__error=0.3)
    assert runner.chosen(BEST) == FITS[2]


def test_a_file_of_another_run_is_laid_where_it_is_expected(runner, finish):
    maker = Run("maker", "fit", "tasks/a.yaml")
    reader = Run("reader", "test", "tasks/a.yaml", files=(File("runs/x/features.pt", maker, "features.pt"),))
    assert Table("t", "", "", "", (Cell("r", "c", (reader,), "m"),)).runs() == [maker, reader]
    with pytest.raises(Missing, match="maker is not finished"):
        runner._job(reader)
    finish(maker)
    with pytest.raises(Missing, match="maker left no features.pt"):
        runner._job(reader)
    (runner.folder(maker) / "features.pt").write_text("weights")
    runner._job(reader)
    runner._job(reader)
    assert (runner.folder(reader) / "runs/x/features.pt").read_text() == "weights"


def test_what_is_shown_is_what_to_type(runner, finish):
    """Before anything has run; the same words are in the record."""
    maker = Run("maker", "fit", "tasks/a.yaml", ("--solver", "conf/s.yaml"))
    file = File("runs/x/features.pt", maker, "features.pt")
    test = Run("test", "test", "experiments/runs/b.yaml", ("--list", "[1, 2]"), weights=BEST, files=(file,))
    start = Run("start", "learn_start", "tasks/a.yaml", weights=maker)
    assert runner.show(maker).splitlines() == [
        "# maker",
        "jiio fit --config tasks/a.yaml --solver conf/s.yaml --trainer.default_root_dir store/maker",
    ]
    assert runner.show(test).splitlines() == [
        "# test, after fit1, after fit2, after fit3, after maker",
        "# BEST: the one of 3 with the lowest val/error",
        "mkdir -p runs/x && cp store/maker/features.pt runs/x/features.pt",
        "python -m experiments test --config experiments/runs/b.yaml --list '[1, 2]' --trainer.default_root_dir store/test "
        "--ckpt_path store/BEST/checkpoints/last.ckpt",
    ]
    finish(maker)
    job = runner._job(start)
    assert runner.show(start).endswith(f"\n{job.command}")
    root = runner.project
    assert job.arguments == [
        *("learn_start", "--config", f"{root}/tasks/a.yaml", "--trainer.default_root_dir", f"{root}/store/start"),
        *("--out", f"{root}/store/start/checkpoints/last.ckpt", "--ckpt_path", f"{root}/store/maker/checkpoints/last.ckpt"),
    ]


class Held:
    """An executor whose jobs end when they are told to; it notes what runs together."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.together: list[tuple[str, ...]] = []

    kind, outlives, isolates, poll = "held", False, False, 0.05

    def submit(self, job: Job) -> Held.Handle:
        self.running.append(job.run.name)
        self.together.append(tuple(self.running))
        return Held.Handle(self, job.run.name)

    class Handle:
        """Of a job that ends when it is looked at for the third time, without a record."""

        state = "RUNNING"

        def __init__(self, executor: Held, name: str) -> None:
            self.executor, self.name, self.looks = executor, name, 0

        def done(self) -> bool:
            self.looks += 1
            return self.looks > 2

        def result(self) -> None:
            self.executor.running.remove(self.name)
            raise RuntimeError("it was killed")


def test_a_timed_run_is_alone_and_others_pass_it(runner):
    """While something runs it waits; once it runs nothing is started beside it. What needs a run that fails is not tried."""
    runner.jobs, runner.executor = 2, Held()
    first, last = Run("first", "fit", "tasks/a.yaml"), Run("last", "fit", "tasks/a.yaml")
    timed = Run("timed", "fit", "tasks/a.yaml", timed=True)
    late = Run("late", "compare", "tasks/a.yaml")
    needing = Run("needing", "test", "tasks/a.yaml", weights=first)
    runner.execute([first, timed, last, late, needing])
    assert runner.executor.together == [("first",), ("first", "last"), ("timed",), ("late",)]
    assert "it was killed" in runner.failures["timed"] and runner.failures["needing"] == "first is not finished"
    assert set(runner.failures) == {"first", "timed", "last", "late", "needing"}


HOLDER = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); input()"


def test_a_run_that_another_runner_does_is_left_to_it(runner):
    """It starts when the other's job has ended without a record; what can run meanwhile does."""
    runner.executor = Held()
    first, last = Run("first", "fit", "tasks/a.yaml"), Run("last", "fit", "tasks/a.yaml")
    lock = runner.folder(first).with_name(".first.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        runner.deadline = time.monotonic() + 1
        runner.execute([first, last])
        assert runner.executor.together == [("last",)]
        other.communicate(b"\n")
    runner.deadline = math.inf
    runner.execute([first])
    assert runner.executor.together == [("last",), ("first",)]


TRY = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def test_a_job_holds_its_claim_to_its_end_and_does_nothing_that_is_done(tmp_path):
    free: list[bool] = []

    def execute() -> None:
        free.append(
            subprocess.run([sys.executable, "-c", TRY, tmp_path / ".run.lock"], stderr=subprocess.DEVNULL).returncode == 0
        )

    job = SimpleNamespace(folder=tmp_path / "run", execute=execute)
    _alone(job)
    assert free == [False]
    execute()
    assert free == [False, True]
    write_text(job.folder / RECORD, "{}")
    _alone(job)
    assert free == [False, True]


def test_what_runs_at_the_deadline_is_ended(runner):
    ended: list[str] = []
    endless = SimpleNamespace(done=lambda: bool(ended), cancel=lambda: ended.append("cancelled"), result=lambda: None)
    runner.executor.submit = lambda job: endless
    runner.deadline = time.monotonic() + 0.1
    runner.execute(list(FITS))
    assert ended == ["cancelled"] and not runner.failures and runner.record(FITS[0]) is None


def test_a_fit_is_resumed_where_it_was_stopped(runner, finish):
    fit = FITS[0]
    finish(fit)
    (runner.folder(fit) / "record.json").unlink()
    job = runner._job(fit)
    assert job.arguments[-2:] == ["--ckpt_path", str(runner.folder(fit) / CHECKPOINT)] and job.weights is None
    assert job.resumed and not runner._job(FITS[1]).resumed
    assert runner._job(FITS[1]).arguments[-2] != "--ckpt_path", "another fit begins anew"
    (runner.project / "conf" / "s.yaml").write_text("steps: 4\n")
    assert runner._job(fit).arguments[-2] != "--ckpt_path", "so does one with another configuration"
    assert not (runner.folder(fit) / CHECKPOINT).exists()


def test_the_learning_curve_is_read_from_the_log(tmp_path):
    assert learning_curve(tmp_path / "metrics.csv", "val/error") == []
    (tmp_path / "metrics.csv").write_text("step,val/error,train/cost\n9,0.4,\n19,,5.0\n19,0.2,\n9,0.3,\n")
    assert learning_curve(tmp_path / "metrics.csv", "val/error") == [(10, 0.3), (20, 0.2)]


def test_numbers_of_a_json_file(tmp_path):
    (tmp_path / "compare.json").write_text('{"speedup": 3.5, "at": {"default": {"seconds": 2}}, "flag": true, "list": [1]}')
    assert json_metrics(tmp_path, "compare") == {"compare/speedup": 3.5, "compare/at/default/seconds": 2.0}
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
    assert "nonsense" in runner.failures["bad"] and "log.txt" in runner.failures["bad"]
    fit, test = runner.record(REAL_FIT), runner.record(REAL_TEST)
    assert fit.steps == 12 and [step for step, _ in fit.curve] == [4, 8, 12] and fit.data and fit.peak_memory > 2**27
    assert 0 < fit.metrics["process_seconds"] < 60, "of the run, not of the process that it was forked from"
    assert fit.seed == 0 and 0 < test.metrics["test/error"] < 2 and test.weights == "digits" and "--ckpt_path" in test.command
    runner.execute([REAL_FIT, REAL_TEST])
    assert runner.record(REAL_FIT) == fit and runner.record(REAL_TEST) == test


SCRIPT = """
import signal
from pathlib import Path
from experiments.plan import Budget
from experiments.runner import Runner
from tests.experiments.test_runner import LONG
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with Ctrl-C ignored
Runner(Path.cwd(), Path({store!r}), Budget.SMOKE).execute([LONG])
"""
LONG = Run("long", "fit", "tasks/digits.yaml", ("--trainer.max_steps", "30", *FAST[2:]))


def ended_by(number: int, everyone: bool, store: Path) -> str:
    """A fit whose runner gets a signal in the middle, alone or with all of its group as from a terminal; returns its log."""
    script = SCRIPT.format(store=str(store))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    log = store / "long" / "log.txt"
    while not (log.is_file() and " 8/30" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    (os.killpg if everyone else os.kill)(process.pid, number)
    assert process.wait() != 0
    assert not (store / "long" / "record.json").exists() and (store / "long" / CHECKPOINT).is_file()
    return log.read_text()


@pytest.mark.slow
def test_an_interrupted_fit_goes_on(tmp_path):
    """Ctrl-C; the second call ends as an undisturbed run does."""
    ended_by(signal.SIGINT, True, tmp_path)
    subprocess.run([sys.executable, "-c", SCRIPT.format(store=str(tmp_path))], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    record = Record.load(tmp_path / "long" / "record.json")
    assert record.steps == 30 and "--ckpt_path" in record.command and record.resumed
    undisturbed = Runner(ROOT, tmp_path / "other", Budget.SMOKE)
    undisturbed.execute([LONG])
    assert undisturbed.record(LONG).metrics["val/error"] == record.metrics["val/error"]
    assert undisturbed.record(LONG).curve == record.curve and not undisturbed.record(LONG).resumed


@pytest.mark.slow
def test_a_terminated_runner_leaves_nothing_running(tmp_path):
    log = ended_by(signal.SIGTERM, False, tmp_path)
    assert "30/30" not in log
    time.sleep(2)
    assert (tmp_path / "long" / "log.txt").read_text() == log, "the fit goes on"
