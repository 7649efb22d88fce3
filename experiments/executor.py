"""An executor: each function in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Handle:
    """A function that is executed in a process."""

    process: BaseProcess

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
    """An executor with a new process for each function.

    Not a pool of :mod:`concurrent.futures`: there a function that runs cannot be cancelled, and one process that the system
    kills, for want of memory, takes all others with it.
    """

    def submit(self, function: Callable[..., None], *args: Any) -> Handle:
        process = _server().Process(target=_interruptible, args=(function, *args))
        process.start()
        return Handle(process)


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Processes that have imported everything already, and computed nothing."""
    os.environ["JIIO_DATA"] = str(Path(os.environ.get("JIIO_DATA", "data")).resolve())  # each has a working directory of its own
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.job"])
    return context


def _interruptible(function: Callable[..., None], *args: Any) -> None:
    """Ctrl-C interrupts twice, from the terminal and from the runner: the second must not disturb the end after the first."""

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    function(*args)
