"""Runs on a cluster: what each asks for, that it is done once whoever submits it, and that it outlives who has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import cluster as module
from experiments.__main__ import main
from experiments.cluster import Cluster, _on_node, _resumed, gpus
from experiments.executor import JOB
from experiments.job import CHECKPOINT, LOG, RECORD
from experiments.plan import Budget, Limits, Run
from experiments.record import Record
from experiments.runner import Runner
from experiments.tables import TABLES
from jiio_lightning.files import write_text
from tests.experiments.test_runner import LONG, REAL_TEST, ROOT

FIT = Run("fit", "fit", "tasks/a.yaml")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of a Slurm (slurm.sh) that starts no job as long as ``hold`` is in it."""
    folder, programs = tmp_path / "slurm", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel", "job"):
        shutil.copy(Path(__file__).with_name("slurm.sh"), programs / name)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(module.submitit.SlurmJob, "watcher", module.submitit.slurm.slurm.SlurmInfoWatcher(delay_s=2))
    monkeypatch.setattr(module.submitit.SlurmJob, "_results_timeout_s", 1)
    (folder / "hold").touch()
    yield folder
    for state in folder.glob("*.state"):
        state.write_text("CANCELLED")  # what is still pending ends


def calls(slurm: Path, program: str) -> list[str]:
    return [line for line in (slurm / "calls").read_text().splitlines() if line.split()[0] == program]


def interrupted(runner: Runner, runs: list[Run], monkeypatch) -> None:
    """Ctrl-C while the runs are in the queue."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("experiments.runner.time.sleep", interrupt)
        runner.execute(runs)


def test_a_run_asks_for_its_gpus_memory_and_time(runner, slurm):
    (runner.project / "conf" / "4gpu.yaml").write_text("accelerator: gpu\ndevices: 4\n")
    runner.executor = Cluster("slurm", {"partition": "gpu", "account": "abc"})
    words = ("--trainer", "conf/s.yaml", "--trainer", "conf/4gpu.yaml")
    run = Run("a/fit", "fit", "tasks/a.yaml", words, limits=Limits(hours=1.5, memory=32, cpus=8))
    handle = runner.executor.submit(runner._job(run))
    script = (slurm / "101.sh").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert asked >= {"job-name=a/fit", "partition=gpu", "account=abc", "time=90", "nodes=1", "signal=TERM@90"}
    assert asked >= {"gpus-per-node=4", "mem=128GB", "cpus-per-task=32"} and "exclusive" not in asked
    (command,) = [line for line in script if line.startswith("srun")]
    assert command.startswith("srun --unbuffered --output ") and "-m submitit.core._submit" in command
    assert (runner.folder(run) / JOB).read_text() == "slurm 101" and not handle.done() and handle.state == "PENDING 101"
    assert calls(slurm, "sacct") == ["sacct -o JobID,State,NodeList --parsable2 -j 101"]
    runner.executor.submit(runner._job(Run("timed", "compare", "tasks/a.yaml", timed=True)))
    timed = (slurm / "102.sh").read_text()
    assert "#SBATCH --exclusive\n" in timed and "gpus-per-node" not in timed and "--mem=8GB" in timed


def test_runs_stay_in_the_queue_when_their_submitter_is_interrupted(runner, slurm, finish, monkeypatch):
    """What needs another run is not there yet. A second submitter takes them over, shows them, cancels them if told to."""
    timed, needing = Run("timed", "compare", "tasks/a.yaml"), Run("needing", "test", "tasks/a.yaml", weights=FIT)
    runs = [FIT, timed, needing]
    runner.executor, runner.jobs = Cluster("slurm"), 9
    interrupted(runner, runs, monkeypatch)
    second = Runner(runner.project, runner.store, Budget.SMOKE, 9, Cluster("slurm"))
    interrupted(second, runs, monkeypatch)
    assert len(calls(slurm, "sbatch")) == 2 and "scancel" not in (slurm / "calls").read_text()
    assert [line.split(maxsplit=1)[1] for line in second.queue(runs)] == ["PENDING 101", "PENDING 102", "to do"]
    here = Runner(runner.project, runner.store, Budget.SMOKE)
    here.execute([FIT])
    assert "fit is job 101 of --executor slurm" in here.failures["fit"], "another executor leaves it alone"
    second.submitted(FIT).cancel()
    assert calls(slurm, "scancel") == ["scancel 101"]
    time.sleep(2.1)  # sacct is not asked more often
    finish(timed)
    assert [line.split(maxsplit=1)[1] for line in second.queue(runs)] == ["to do", "done", "to do"]
    interrupted(second, runs, monkeypatch)
    assert (runner.folder(FIT) / JOB).read_text() == "slurm 103", "a run whose job is dead is submitted again"


def test_a_run_that_another_process_has_done_meanwhile_is_not_submitted(runner, slurm, finish, monkeypatch):
    (slurm / "refuse").touch()
    runner.executor = Cluster("slurm")
    asked = iter([None])
    record = runner.record
    monkeypatch.setattr(runner, "record", lambda run: next(asked, record(run)))
    finish(FIT)
    runner.execute([FIT])
    assert not runner.failures and not (slurm / "calls").exists()


def test_the_words_of_an_sbatch_that_refuses(runner, slurm):
    (slurm / "refuse").touch()
    runner.executor = Cluster("slurm", {"partition": "nonsense"})
    runner.execute([FIT])
    assert "invalid partition specified" in runner.failures["fit"] and not (runner.folder(FIT) / JOB).exists()


def test_a_job_that_nobody_has_noted_does_nothing(runner, slurm, monkeypatch):
    """Its submitter was killed between sbatch and the note; the next one has submitted another job."""
    job = runner._job(FIT)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "101")
    monkeypatch.setenv("SLURM_JOB_NAME", "fit")
    before = signal.getsignal(signal.SIGTERM)
    try:
        for note in (None, "slurm 102", "submitit 101"):
            if note is not None:
                write_text(job.folder / JOB, note)
            with pytest.raises(RuntimeError, match="another job has this run"):
                _on_node(job, "slurm")
        write_text(job.folder / JOB, "slurm 101")
        write_text(job.folder / RECORD, "done")
        _on_node(job, "slurm")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (job.folder / LOG).exists()


def test_a_fit_that_slurm_starts_again_goes_on(runner, finish):
    job = runner._job(FIT)
    assert _resumed(job) is job
    write_text(job.folder / CHECKPOINT, "weights")
    again = _resumed(job)
    assert again.arguments == [*job.arguments, "--ckpt_path", str(job.folder / CHECKPOINT)] and _resumed(again) is again
    assert _resumed(replace(job, run=replace(FIT, command="test"))).arguments == job.arguments


@pytest.mark.parametrize("budget", list(Budget))
def test_the_gpus_of_every_run_are_those_of_its_trainer(budget):
    runs = {run for table in TABLES.values() for run in table(budget).runs()}
    found = {run.name: gpus([word if word[:2] == "--" else str(ROOT / word) for word in run.overrides]) for run in runs}
    if budget is Budget.PAPER:
        fits = ("generators/jiio_seed0_0.001", "meta/jiio_seed0", "meta/maml_seed0", "adversarial/mnist_1_jiio_seed0")
        assert [found[name] for name in fits] == [4, 4, 1, 2]
        hours = {run.name: run.limits.hours for run in runs}
        assert hours["meta/jiio_seed0"] == hours["generators/ffhq"] == 72
        assert hours["meta/maml_seed0"] == hours["table6/jiio_seed0"] == 24
    assert set(found.values()) == {Budget.PAPER: {1, 2, 3, 4}, Budget.GPU: {1}}.get(budget, {0})


def test_a_cluster_where_there_is_none(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["table5", "--executor", "slurm", "--store", str(tmp_path)]) == 2
    assert "there is no sbatch and srun here" in capsys.readouterr().err
    assert main(["table5", "--partition", "gpu", "--store", str(tmp_path)]) == 2
    assert "--partition and --sbatch are of --executor slurm" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "experiments.cluster", None)
    assert main(["table5", "--executor", "submitit", "--store", str(tmp_path)]) == 2
    assert "pip install 'jiio-lightning[cluster]'" in capsys.readouterr().err


def test_the_queue_of_a_table(capsys, tmp_path, slurm):
    words = ["fig6", "--budget", "paper", "--store", str(tmp_path), "--executor", "slurm", "--partition", "gpu"]
    assert main([*words, "--queue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [["generators/ffhq", "to do"], ["fig6/test", "to do"]]
    assert not (slurm / "calls").exists()


SCRIPT = """
import signal
from pathlib import Path
from experiments.cluster import Cluster
from experiments.plan import Budget
from experiments.runner import Runner
from tests.experiments.test_cluster import LONG, LONG_TEST
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with Ctrl-C ignored
runner = Runner(Path.cwd(), Path({store!r}), Budget.SMOKE, 2, Cluster({kind!r}))
runner.execute([LONG, LONG_TEST])
assert not runner.failures, runner.failures
"""
LONG_TEST = replace(REAL_TEST, weights=LONG)


def submitter(kind: str, store: Path) -> subprocess.Popen:
    script = SCRIPT.format(kind=kind, store=str(store))
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)


def wait_for_training(store: Path) -> None:
    log = store / "long" / LOG
    end = time.monotonic() + 120
    while not (log.is_file() and " 8/30" in log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_local_job_outlives_its_submitter_and_is_found_again(tmp_path, number):
    """A signal to all of the submitter's group, as from a terminal; SIGKILL to it alone."""
    first = submitter("submitit", tmp_path)
    wait_for_training(tmp_path)
    note = (tmp_path / "long" / JOB).read_text()
    (os.kill if number is signal.SIGKILL else os.killpg)(first.pid, number)
    first.wait()
    assert not (tmp_path / "long" / RECORD).exists()
    assert submitter("submitit", tmp_path).wait() == 0
    record = Record.load(tmp_path / "long" / RECORD)
    assert record.steps == 30 and "--ckpt_path" not in record.command and (tmp_path / "long" / JOB).read_text() == note
    assert (tmp_path / "digits_test" / RECORD).is_file()


@pytest.mark.slow
def test_a_local_job_that_is_cancelled_goes_on_from_its_checkpoint(tmp_path):
    first = submitter("submitit", tmp_path)
    wait_for_training(tmp_path)
    runner = Runner(ROOT, tmp_path, Budget.SMOKE, 1, Cluster("submitit"))
    handle = runner.submitted(LONG)
    assert handle.state.startswith("RUNNING ")
    handle.cancel()
    assert first.wait() == 1 and handle.done() and (tmp_path / "long" / CHECKPOINT).is_file()
    assert submitter("submitit", tmp_path).wait() == 0
    record = Record.load(tmp_path / "long" / RECORD)
    assert record.steps == 30 and "--ckpt_path" in record.command


@pytest.mark.slow
def test_a_local_fit_that_is_out_of_time_saves_its_checkpoint(tmp_path):
    """It is told half a minute before the end."""
    fit = Run(
        "long", "fit", "tasks/digits.yaml", ("--trainer.max_steps", "100000", *LONG.overrides[2:]), limits=Limits(hours=1 / 60)
    )
    runner = Runner(ROOT, tmp_path, Budget.SMOKE, 1, Cluster("submitit"))
    runner.execute([fit])
    assert (tmp_path / "long" / CHECKPOINT).is_file() and "it failed: RuntimeError: it was ended: 143" in runner.failures["long"]


@pytest.mark.slow
def test_two_submitters_at_once_run_each_cell_once_on_slurm(tmp_path, slurm):
    (slurm / "hold").unlink()
    both = [submitter("slurm", tmp_path / "store") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(calls(slurm, "sbatch")) == len(calls(slurm, "srun")) == 2
    assert Record.load(tmp_path / "store" / "long" / RECORD).steps == 30


@pytest.mark.slow
def test_a_fit_of_two_processes_that_slurm_kills_goes_on(tmp_path, slurm):
    """Lightning starts the second process in the one task of the job."""
    (slurm / "hold").unlink()
    fit = replace(LONG, overrides=(*LONG.overrides, "--trainer.devices", "2", "--trainer.strategy", "ddp"))
    runner = Runner(ROOT, tmp_path / "store", Budget.SMOKE, 1, Cluster("slurm"))
    handle = runner.executor.submit(runner._job(fit))
    wait_for_training(tmp_path / "store")
    handle.cancel()
    while not handle.done():
        time.sleep(0.2)
    with pytest.raises(RuntimeError):
        handle.result()
    assert (tmp_path / "store" / "long" / CHECKPOINT).is_file() and not (tmp_path / "store" / "long" / RECORD).exists()
    runner.execute([fit])
    record = runner.record(fit)
    assert record.steps == 30 and "--ckpt_path" in record.command
    assert "MEMBER: 2/2" in (tmp_path / "store" / "long" / LOG).read_text()
