"""Executes the runs of tables one after the other, each at most once, and goes on where it was stopped."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from experiments.job import ERROR, LOG, RECORD, Job
from experiments.plan import Budget, Choice, File, Run, needs
from experiments.record import Record, is_fragment, key, write_atomically
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.prepared import Manifest

KEY = "key.txt"


class Missing(RuntimeError):
    """A run without a result, and why."""


@dataclass
class Runner:
    """Runs of one budget.

    Args:
        project: root of the checkout, where ``tasks/`` and ``conf/`` are.
        store: where the runs live, each in a folder of its own.
        budget: recorded with each figure.
        jobs: runs at once, each with its share of the processor's cores; a run that measures time is always alone.
        failures: what went wrong, by the name of the run.
    """

    project: Path
    store: Path
    budget: Budget
    jobs: int = 1
    failures: dict[str, str] = field(default_factory=dict)

    def execute(self, runs: list[Run]) -> None:
        """Do what is not done yet; a run that fails is noted, and those that need it are not tried."""
        waiting = [run for run in runs if self.record(run) is None]
        active: dict[Run, BaseProcess] = {}
        with tqdm(total=len(runs), initial=len(runs) - len(waiting), desc="runs", unit="run") as progress:
            try:
                while waiting or active:
                    self._start(waiting, active, progress)
                    _wait(active)
                    self._collect(active, progress)
                    progress.set_postfix_str("; ".join(f"{run.name} {_last_line(self.folder(run) / LOG)}" for run in active))
            except KeyboardInterrupt:
                for process in active.values():
                    process.join()  # the interruption reached it too: it saves its checkpoint
                raise

    def _start(self, waiting: list[Run], active: dict[Run, BaseProcess], progress: tqdm) -> None:
        """Start, in order, what can run now."""
        for run in list(waiting):
            needed = set(needs(run))
            if needed & {*waiting, *active}:
                continue
            if len(active) >= self.jobs or any(other.alone for other in active):
                return
            if run.alone and active:
                continue
            waiting.remove(run)
            try:
                active[run] = self._launch(run)
            except Missing as why:
                self.failures[run.name] = str(why)
                progress.update()

    def _collect(self, active: dict[Run, BaseProcess], progress: tqdm) -> None:
        """Take what has ended out of the active runs."""
        for run, process in list(active.items()):
            if not process.is_alive():
                del active[run]
                progress.update()
                folder = self.folder(run)
                if not (folder / RECORD).is_file():
                    self.failures[run.name] = _complaint(folder, process.exitcode)

    def folder(self, run: Run) -> Path:
        """Where a run lives."""
        return (self.store / run.name).resolve()

    def record(self, run: Run) -> Record | None:
        """The result of a run, if it is there and still holds: same configuration, weights, code and data."""
        record = Record.load(self.folder(run) / RECORD)
        if record is None or record.key != key(run, self.project):
            return None
        return record if all(_checksum(folder) == checksum for folder, checksum in record.data.items()) else None

    def chosen(self, weights: Run | Choice) -> Run:
        """The fit whose weights are wanted; of several the best by its validation figure. One that failed (a learning rate at
        which training diverged) is a result too, and out of the choice.

        Raises:
            Missing: if one of them has no result yet, or all have failed.
        """
        if isinstance(weights, Run):
            if self.record(weights) is None:
                raise Missing(f"{weights.name} is not finished")
            return weights
        tried = [trial for trial in weights.runs if not self._failed(trial)]
        absent = [trial.name for trial in tried if self.record(trial) is None]
        if absent or not tried:
            raise Missing(f"{', '.join(absent) or 'every trial'} is not finished")
        return min(tried, key=lambda trial: _loss(self.record(trial), weights))

    def _failed(self, run: Run) -> bool:
        """Whether this very run ended with an error."""
        folder = self.folder(run)
        started = folder / KEY
        return (folder / ERROR).is_file() and started.is_file() and started.read_text() == key(run, self.project)

    def checkpoint(self, weights: Run | Choice) -> Path:
        """The last checkpoint of a fit."""
        run = self.chosen(weights)
        path = _last_checkpoint(self.folder(run))
        if path is None:
            raise Missing(f"{run.name} left no checkpoint")
        return path

    def _lay_out(self, file: File, folder: Path) -> None:
        """Link a file that another run has left to where a run expects it."""
        if self.record(file.run) is None:
            raise Missing(f"{file.run.name} is not finished")
        path = _newest(self.folder(file.run), file.pattern)
        if path is None:
            raise Missing(f"{file.run.name} left no {file.pattern}")
        place = folder / file.place
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(path)

    def _launch(self, run: Run) -> BaseProcess:
        """A started process for a run.

        Raises:
            Missing: if what it needs has no result.
        """
        folder, wanted = self.folder(run), key(run, self.project)
        resumed = self._resumable(run, folder, wanted)
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
            write_atomically(folder / KEY, wanted)
        (folder / ERROR).unlink(missing_ok=True)
        for file in run.files:
            self._lay_out(file, folder)
        threads = None if self.jobs == 1 or run.alone else max(1, (os.cpu_count() or 1) // self.jobs)
        arguments = self._arguments(run, folder if resumed else None)
        job = Job(run.name, wanted, run.curve, str(self.budget), arguments, folder, threads)
        process = self._processes.Process(target=job.execute)
        process.start()
        return process

    def _resumable(self, run: Run, folder: Path, wanted: str) -> bool:
        """Whether an earlier attempt at the very same fit left a checkpoint."""
        file = folder / KEY
        unfinished = file.is_file() and file.read_text() == wanted and not (folder / RECORD).exists()
        return run.command == "fit" and unfinished and _last_checkpoint(folder) is not None

    def _arguments(self, run: Run, resume: Path | None) -> list[str]:
        overrides = [str((self.project / text).resolve()) if is_fragment(text, self.project) else text for text in run.overrides]
        arguments = [run.command, "--config", str((self.project / run.config).resolve()), *overrides]
        if run.weights is not None:
            return [*arguments, "--ckpt_path", str(self.checkpoint(run.weights))]
        return arguments if resume is None else [*arguments, "--ckpt_path", str(_last_checkpoint(resume))]

    @cached_property
    def _processes(self) -> multiprocessing.context.ForkServerContext:
        """Processes that have imported everything already, and computed nothing."""
        os.environ["JIIO_DATA"] = str(
            Path(os.environ.get("JIIO_DATA", "data")).resolve()
        )  # each job has its own working directory
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["experiments.job"])
        return context


def _wait(active: dict[Run, BaseProcess]) -> None:
    """Until one of the active runs ends, or for a second."""
    wait([process.sentinel for process in active.values()], timeout=1)


def _last_line(log: Path, shown: int = 60) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 500))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:shown] for line in reversed(lines) if line.strip()), "")


def _last_checkpoint(folder: Path) -> Path | None:
    return _newest(folder, "last.ckpt")


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.rglob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def _complaint(folder: Path, status: int | None) -> str:
    path = folder / ERROR
    what = path.read_text().strip() if path.is_file() else f"it ended with status {status}"
    return f"{what} (see {folder / LOG})"


def _checksum(folder: str) -> str | None:
    """Of a prepared set as it is now; None if it is gone."""
    try:
        return Manifest.load(Path(folder)).checksum
    except DataError:
        return None


def _loss(record: Record | None, choice: Choice) -> float:
    """The figure of a choice, low for good; infinite where training ended in NaN."""
    if record is None or choice.metric not in record.metrics:
        raise Missing(f"no {choice.metric} in the record of {record.name if record else 'a run'}")
    value = record.metrics[choice.metric]
    return math.inf if not math.isfinite(value) else value if choice.better == "low" else -value
