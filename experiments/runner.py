"""Executes the runs of a table, each at most once, and goes on where it was stopped."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from experiments.executor import JOB, Claimed, Handle, Processes, claimed
from experiments.job import CHECKPOINT, LOG, RECORD, Job
from experiments.plan import Budget, Choice, Run, needs, trials
from experiments.record import Record, is_fragment, key
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.prepared import Manifest
from jiio_lightning.files import write_text

if TYPE_CHECKING:  # submitit is an extra
    from experiments.cluster import Cluster, Submitted

KEY = "key.txt"


class Missing(RuntimeError):
    """A run without a result, and why."""


@dataclass
class Runner:
    """Runs of one budget, each in a folder of its own."""

    project: Path  # root of the checkout, where tasks/ and conf/ are
    store: Path  # of the runs' folders
    budget: Budget
    jobs: int = 1  # runs at once, each with its share of the cores; a run that measures time is always alone
    executor: Processes | Cluster = field(default_factory=Processes)
    deadline: float = math.inf  # of time.monotonic: runs that go on then are ended, and go on the next time
    failures: dict[str, str] = field(default_factory=dict)  # what went wrong, by the name of the run

    def execute(self, runs: list[Run]) -> None:
        """Do what is not done yet; a run that fails is noted, and those that need it are not tried."""
        todo = [run for run in runs if self.record(run) is None]
        order = TopologicalSorter({run: [needed for needed in needs(run) if needed in todo] for run in todo})
        order.prepare()
        ready: list[Run] = []
        active: dict[Run, Handle | Submitted] = {}
        bound = {} if self.executor.outlives else active
        with tqdm(total=len(runs), initial=len(runs) - len(todo), desc="runs", unit="run") as bar, _ended_with(bound):
            while order.is_active() and time.monotonic() < self.deadline:
                ready = sorted([*ready, *order.get_ready()], key=todo.index)
                for run in [*self._start(ready, active), *self._collect(active)]:
                    order.done(run)
                    bar.update()
                if ready and not active:
                    time.sleep(1)  # all that is left to start is others' for now
                bar.set_postfix_str("; ".join(f"{run.name} {_last_line(self.folder(run) / LOG)}" for run in active))

    def _start(self, ready: list[Run], active: dict[Run, Handle | Submitted]) -> list[Run]:
        """Start, in order, what can run now; returns the runs that cannot, and those that others have done."""
        over: list[Run] = []
        for run in list(ready):
            crowded = not self.executor.isolates and (any(other.alone for other in active) or (run.alone and active))
            if crowded or len(active) >= self.jobs:
                continue
            ready.remove(run)
            try:
                with claimed(self.folder(run), wait=self.executor.outlives):
                    if self.record(run) is None:  # another process may have been faster
                        active[run] = self.submitted(run) or self.executor.submit(self._job(run))
            except Claimed:  # a job of another runner on this machine does it
                ready.append(run)
                continue
            except RuntimeError as why:
                self.failures[run.name] = str(why)
            if run not in active:
                over.append(run)
        return over

    def submitted(self, run: Run) -> Submitted | None:
        """The job that does a run now, whichever process has submitted it."""
        note = self.folder(run) / JOB
        if not note.is_file():
            return None
        kind, number = note.read_text().split()
        if isinstance(self.executor, Processes) or kind != self.executor.kind:
            raise Missing(f"{run.name} is job {number} of --executor {kind}: go on with it, or cancel it and delete {note}")
        handle = self.executor.find(self.folder(run), number)
        return None if handle.done() else handle

    def queue(self, runs: list[Run]) -> list[str]:
        """Where each run stands, in a line."""
        return [f"{run.name:40} {self._standing(run)}" for run in runs]

    def _standing(self, run: Run) -> str:
        if self.record(run) is not None:
            return "done"
        try:
            handle = self.submitted(run)
        except Missing as why:
            return str(why)
        return "to do" if handle is None else f"{handle.state}  {_last_line(self.folder(run) / LOG)}".strip()

    def _collect(self, active: dict[Run, Handle | Submitted]) -> list[Run]:
        """Wait until a run ends, a second at most; returns the runs that have."""
        deadline = time.monotonic() + 1
        while active and time.monotonic() < deadline and not any(handle.done() for handle in active.values()):
            time.sleep(self.executor.poll)  # polling asks the least of an executor: no callbacks
        ended = [run for run, handle in active.items() if handle.done()]
        for run in ended:
            self._judge(run, active.pop(run))
        return ended

    def _judge(self, run: Run, handle: Handle | Submitted) -> None:
        what = "it left no record"
        try:
            handle.result()
        except Exception as error:  # any: an executor has exceptions of its own
            what = str(error)
        # a job saves its record last: with one the run is done, however its process ended
        if not (self.folder(run) / RECORD).is_file():
            log = self.folder(run) / LOG
            self.failures[run.name] = f"{what}: {_last_line(log, 300)} (see {self._shown(log)})"

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
        """The run whose checkpoint is wanted; of several the best by its validation metric. One that failed, such as a learning
        rate at which training diverged, is out of the choice. Raises Missing if there is no result."""
        found = {run: record for run in trials(weights) if (record := self.record(run)) is not None}
        if not found:
            raise Missing(f"{', '.join(run.name for run in trials(weights))} is not finished")
        return min(found, key=lambda run: _loss(found[run], weights)) if isinstance(weights, Choice) else weights

    def show(self, run: Run) -> str:
        """What to type in the project's root for a run, after what it needs; nothing has to be there yet."""
        lines = [f"# {run.name}" + "".join(f", after {other.name}" for other in needs(run))]
        weights = run.weights
        if isinstance(weights, Choice):
            lines.append(f"# BEST: the one of {len(weights.runs)} with the {weights.better}est {weights.metric}")
            weights = Run("BEST", "fit", "")
        made = [(Path(file.place), self._shown(self.folder(file.run) / file.path)) for file in run.files]
        lines += [f"mkdir -p {place.parent} && cp {path} {place}" for place, path in made]
        return "\n".join([*lines, self._command(run, weights)])

    def _command(self, run: Run, weights: Run | None) -> str:
        return f"{run.program} {shlex.join(self._arguments(run, weights, self._shown))}"

    def _arguments(self, run: Run, weights: Run | None, path: Callable[[Path], str]) -> list[str]:
        """Of the program, with paths as ``path`` writes them."""
        overrides = [path(self.project / text) if is_fragment(text, self.project) else text for text in run.overrides]
        out = ["--out", path(self.folder(run) / CHECKPOINT)] if run.command == "learn_start" else []
        read = [] if weights is None else ["--ckpt_path", path(self.folder(weights) / CHECKPOINT)]
        folder = ["--trainer.default_root_dir", path(self.folder(run))]
        return [run.command, "--config", path(self.project / run.config), *overrides, *folder, *out, *read]

    def _shown(self, path: Path) -> str:
        """As seen from the project's root."""
        return str(path.relative_to(self.project) if path.is_relative_to(self.project) else path)

    def _job(self, run: Run) -> Job:
        """A run with everything that it needs in its place. Raises Missing if something has no result."""
        wanted, folder = key(run, self.project), self.folder(run)
        weights = None if run.weights is None else self.chosen(run.weights)
        links = {folder / file.place: self._made(file.run, file.path) for file in run.files}
        if weights is not None:
            self._made(weights, CHECKPOINT)
        resumed = self._resumable(run, wanted)
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
            write_text(folder / KEY, wanted)
            for place, path in links.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
        read = run if resumed else weights
        threads = None if self.jobs == 1 or run.alone or self.executor.isolates else max(1, (os.cpu_count() or 1) // self.jobs)
        name = None if weights is None else weights.name
        command, arguments = self._command(run, read), self._arguments(run, read, str)
        return Job(run, wanted, self.budget, name, command, arguments, folder, threads)

    def _made(self, run: Run, path: str) -> Path:
        """A file that a run has left."""
        if self.record(run) is None:
            raise Missing(f"{run.name} is not finished")
        if not (self.folder(run) / path).is_file():
            raise Missing(f"{run.name} left no {path}")
        return self.folder(run) / path

    def _resumable(self, run: Run, wanted: str) -> bool:
        """Whether an earlier attempt at the very same fit left a checkpoint."""
        folder = self.folder(run)
        # by the key: a checkpoint of other settings or code is no beginning of this run
        unfinished = (folder / KEY).is_file() and (folder / KEY).read_text() == wanted and not (folder / RECORD).exists()
        return run.command == "fit" and unfinished and (folder / CHECKPOINT).is_file()


@contextmanager
def _ended_with(active: dict[Run, Handle | Submitted]) -> Iterator[None]:
    """What ends the block, be it Ctrl-C or SIGTERM, ends the active runs too, and waits for them."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it raises KeyboardInterrupt, as Ctrl-C does
    try:
        yield
    finally:
        # all are interrupted before the first is waited for: fits save their checkpoints at the same time
        for handle in active.values():
            handle.cancel()
        for handle in active.values():
            with suppress(RuntimeError):
                handle.result()
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path, length: int = 60) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 1000))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:length] for line in reversed(lines) if line.strip()), "")


def _checksum(folder: str) -> str | None:
    """Of a prepared set as it is now; None if it is gone."""
    try:
        return Manifest.load(Path(folder)).checksum
    except DataError:
        return None


def _loss(record: Record, choice: Choice) -> float:
    """The metric of a choice, low for good; infinite where training ended in NaN."""
    if choice.metric not in record.metrics:
        raise Missing(f"no {choice.metric} in the record of {record.name}")
    value = record.metrics[choice.metric]
    return math.inf if not math.isfinite(value) else value if choice.better == "low" else -value
