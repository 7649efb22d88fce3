"""An executor: each job in a process of its own. :mod:`experiments.cluster` has those of more than one machine."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from experiments.job import RECORD, Job

JOB = "job.txt"
"""In the folder of a run: executor and number of a job that outlives the process that has submitted it."""


@dataclass(frozen=True)
class Handle:
    """A job that is executed in a process."""

    process: BaseProcess
    state = "RUNNING"

    def done(self) -> bool:
        return not self.process.is_alive()

    def result(self) -> None:
        """Wait for its end; raises RuntimeError if it has failed."""
        self.process.join()
        if self.process.exitcode:
            raise RuntimeError(f"it ended with status {self.process.exitcode}")

    def cancel(self) -> None:
        """Interrupt it as Ctrl-C does: a fit saves its checkpoint."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)


class Processes:
    """An executor with a new process for each job.

    Not a pool of :mod:`concurrent.futures`: there a function that runs cannot be cancelled, and one process that the system
    kills, for want of memory, takes all others with it.
    """

    kind = "local"
    outlives = False  # whether jobs go on when this process ends, and ``find`` has them by number
    isolates = False  # whether a run that must be alone gets a machine of its own
    poll = 0.05  # seconds between two looks at the jobs

    def submit(self, job: Job) -> Handle:
        process = _server().Process(target=_interruptible, args=(partial(_alone, job),))
        process.start()
        return Handle(process)


class Claimed(Exception):
    """Somebody else decides on a run, or does it."""


@contextmanager
def claimed(folder: Path, wait: bool = True) -> Iterator[None]:
    """Decide alone, among all that submit and the jobs themselves, on the run of a folder; free when its holder is dead.

    Raises Claimed if somebody has claimed it and this one does not wait.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:  # beside it: the folder of a run is cleared
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError) as taken:  # which of them is the system's choice
            raise Claimed(folder.name) from taken
        yield


def _alone(job: Job) -> None:
    """Its run, claimed to the end; nothing if a job of another runner has done it since this one was submitted."""
    with claimed(job.folder):
        if not (job.folder / RECORD).is_file():
            job.execute()


def absolute_data() -> None:
    """Jobs have working directories of their own."""
    os.environ["JIIO_DATA"] = str(Path(os.environ.get("JIIO_DATA", "data")).resolve())


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Processes that have imported everything already, and computed nothing."""
    absolute_data()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.job"])
    return context


def _interruptible(function: Callable[[], None]) -> None:
    """Ctrl-C interrupts twice, from the terminal and from the runner: the second must not disturb the end after the first."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    function()
