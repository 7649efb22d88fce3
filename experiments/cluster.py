"""Executors whose jobs outlive the process that has submitted them: Slurm, and submitit's own for one machine."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

# what warns of the time limit: a fit ends after its step, as it does when it is cancelled. submitit reads it when it is imported
os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "TERM"

import submitit  # noqa: E402
import yaml  # noqa: E402
from submitit.core.utils import FailedJobError, UncompletedJobError  # noqa: E402
from submitit.local.local import LocalJob  # noqa: E402

from experiments.executor import JOB, absolute_data, claimed  # noqa: E402
from experiments.job import CHECKPOINT, RECORD, Job  # noqa: E402
from experiments.record import LABORATORY  # noqa: E402
from jiio_lightning.files import write_text  # noqa: E402

FOLDER = "submitit"
"""Of submitit's files, in the folder of a run."""


class Local(LocalJob):
    """A job of this machine, which any process finds again: its number is its controller's. submitit's knows its own alone."""

    _results_timeout_s = 1  # no other machine's disk to wait for

    def get_info(self, mode: str = "force") -> dict[str, str]:
        try:  # a number is used again: by the folder too. A process that has ended and was not waited for has no words
            alive = os.fsencode(self.paths.folder) in Path(f"/proc/{self.job_id}/cmdline").read_bytes()
        except OSError:
            alive = False
        return {"jobState": "RUNNING" if alive else "FINISHED" if self.paths.result_pickle.exists() else "KILLED"}

    def cancel(self, check: bool = True) -> None:
        # not SIGINT as submitit's: after that a fit has one second to save its checkpoint
        os.kill(int(self.job_id), signal.SIGTERM)


@dataclass(frozen=True)
class Submitted:
    """A job in a queue, on a node, or at its end."""

    job: submitit.Job[None]

    @property
    def state(self) -> str:
        """Slurm's word for it, and its number."""
        return f"{self.job.state} {self.job.job_id}"

    def done(self) -> bool:
        return self.job.done()

    def result(self) -> None:
        """Wait for its end; raises RuntimeError if it has failed."""
        try:
            self.job.result()
            folder = self.job.paths.folder.parent
            folder.chmod(folder.stat().st_mode)  # as submitit does for its own: a network disk shows what was written in it
        except FailedJobError:
            raise RuntimeError("it failed") from None  # why is in the log of the run
        except UncompletedJobError:
            raise RuntimeError(f"it ended as {self.state}") from None

    def cancel(self) -> None:
        """End it as SIGTERM does: a fit saves its checkpoint."""
        self.job.cancel()


@dataclass(frozen=True)
class Cluster:
    """Submits each run with what it asks for. A run's folder has the number of its job: another process finds it there."""

    kind: Literal["submitit", "slurm"]
    sbatch: Mapping[str, Any] = field(default_factory=dict)  # further options of sbatch, such as account
    outlives = True
    poll = 1.0

    @property
    def isolates(self) -> bool:
        return self.kind == "slurm"

    def submit(self, job: Job) -> Submitted:
        """Raises RuntimeError with sbatch's words if it refuses."""
        shutil.rmtree(job.folder / FOLDER, ignore_errors=True)
        executor = submitit.AutoExecutor(job.folder / FOLDER, cluster="slurm" if self.isolates else "local")
        executor.update_parameters(**self._asked(job))
        absolute_data()
        paths = (str(LABORATORY.parent), *filter(None, [os.environ.get("PYTHONPATH")]))
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        with _undisturbed():
            number = executor.submit(_on_node, job, self.kind).job_id
            write_text(job.folder / JOB, f"{self.kind} {number}")
        return self.find(job.folder, number)

    def find(self, folder: Path, number: str) -> Submitted:
        """The job of a run, by its number."""
        return Submitted((submitit.SlurmJob if self.isolates else Local)(folder / FOLDER, number))

    def _asked(self, job: Job) -> dict[str, Any]:
        limits, devices = job.run.limits, gpus(job.arguments)
        processes = max(1, devices)
        return {
            "name": job.run.name,
            "timeout_min": math.ceil(60 * limits.hours),
            "mem_gb": limits.memory * processes,
            "cpus_per_task": limits.cpus * processes,
            "gpus_per_node": devices or None,
            "slurm_exclusive": True if job.run.alone else None,
            "slurm_additional_parameters": dict(self.sbatch),
        }


def gpus(arguments: list[str]) -> int:
    """How many a command uses: the devices of its last ``--trainer``, if that is one for GPUs."""
    fragments = [path for option, path in pairwise(arguments) if option == "--trainer"]
    trainer = yaml.safe_load(Path(fragments[-1]).read_text()) if fragments else {}
    return trainer["devices"] if trainer.get("accelerator") == "gpu" else 0


def _on_node(job: Job, kind: str) -> None:
    """What a job does: its run, unless another job has it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's would requeue a fit; Lightning has its own
    # one task with all GPUs: Lightning starts the processes of a run itself, as anywhere else, and leaves Slurm's tasks alone
    os.environ["SLURM_JOB_NAME"] = "interactive"
    with claimed(job.folder):
        # a submitting process that was killed before it had noted this job has been followed by another one
        ours = job.folder / JOB
        if not ours.is_file() or ours.read_text() != f"{kind} {submitit.JobEnvironment().job_id}":
            raise RuntimeError("another job has this run")
    if (job.folder / RECORD).is_file():
        return
    try:
        _resumed(job).execute()
    except (SystemExit, KeyboardInterrupt) as end:  # submitit notes exceptions alone
        raise RuntimeError(f"it was ended: {end}") from end


def _resumed(job: Job) -> Job:
    """A fit that Slurm has requeued, after a node has failed, goes on with its checkpoint."""
    if job.run.command != "fit" or job.resumed or not (job.folder / CHECKPOINT).is_file():
        return job
    return replace(job, arguments=[*job.arguments, *job.resuming])


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and the end of the terminal wait, and never reach the processes that start here: local jobs."""
    signals = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
