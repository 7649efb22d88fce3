"""One run in a process of its own: the command, and what it measured."""

from __future__ import annotations

import csv
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.plan import Run
from experiments.record import LABORATORY, PACKAGE, Record
from jiio_lightning.cli import JIIOCLI, run
from jiio_lightning.commands.provenance import provenance

CHECKPOINT, RECORD, LOG = "checkpoints/last.ckpt", "record.json", "log.txt"
"""In the folder of a run."""
JSON_METRICS = {"learn_start": "learn_start.json", "compare": "compare.json", "attack": "attack.json"}
"""The files into which commands that do not log their metrics write them, somewhere below a run's folder."""


@dataclass(frozen=True)
class Job:
    """A run, ready to execute. Its folder is the working directory too: whatever a command writes lies there."""

    run: Run
    key: str  # of its record
    budget: str
    weights: str | None  # name of the run whose checkpoint it reads
    command: str  # what to type in the project's root
    arguments: list[str]  # of the program; all paths absolute
    folder: Path
    threads: int | None = None  # of torch; None leaves its own choice

    @property
    def resumed(self) -> bool:
        """Whether it is a fit that goes on where it was cut off."""
        return self.run.command == "fit" and self.arguments[-2:] == self.resuming

    @property
    def resuming(self) -> list[str]:
        """The arguments with which a fit goes on."""
        return ["--ckpt_path", str(self.folder / CHECKPOINT)]

    def execute(self) -> None:
        """Run the command; afterwards the folder has a record, or the last line of the log says what went wrong."""
        os.chdir(self.folder)
        sys.argv = [str((LABORATORY if self.run.program != "jiio" else PACKAGE) / "__main__.py"), *self.arguments]
        # Lightning starts further processes of a run by this command, however this one has been started
        os.environ["PYTHONPATH"], sys.modules["__main__"].__spec__ = str(LABORATORY.parent), None
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _logged(self.folder / LOG):
            began = time.perf_counter()
            cli = run(self.arguments)
            self._record(cli, time.perf_counter() - began).save(self.folder / RECORD)

    def _record(self, cli: JIIOCLI, seconds: float) -> Record:
        prepared = getattr(cli.datamodule, "prepared", None)
        metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
        return Record(
            name=self.run.name,
            key=self.key,
            command=self.command,
            # of all threads and this run alone, which has a process of its own; of a fit that went on, its last part
            metrics=metrics | json_metrics(self.folder, self.run.command) | {"process_seconds": time.process_time()},
            seconds=seconds,
            peak_memory=_peak_memory(),
            steps=int(cli.trainer.global_step),
            curve=learning_curve(self.folder / "metrics.csv", self.run.curve),
            data={} if prepared is None else {str(prepared.folder.resolve()): prepared.manifest.checksum},
            seed=cli.config[self.run.command].get("seed_everything"),
            budget=self.budget,
            provenance={name: value for name, value in provenance().items() if name != "command"},
            weights=self.weights,
            resumed=self.resumed,
        )


def learning_curve(log: Path, metric: str) -> list[tuple[int, float]]:
    """``(step, value)`` of a validation metric in a ``metrics.csv``; a fit that was resumed may have logged a step twice."""
    if not log.is_file():
        return []
    with log.open(newline="") as file:
        points = {int(row["step"]) + 1: float(row[metric]) for row in csv.DictReader(file) if row.get(metric)}
    return sorted(points.items())  # Lightning counts from 0


def json_metrics(folder: Path, command: str) -> dict[str, float]:
    """The numbers of the JSON file that a command writes, nested names joined by slashes."""
    paths = folder.rglob(JSON_METRICS[command]) if command in JSON_METRICS else ()
    return {f"{command}/{name}": value for path in paths for name, value in _numbers(json.loads(path.read_text()))}


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from _numbers(inner, f"{name}/{part}" if name else str(part))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Everything that the command prints goes to a file, errors with their traceback too."""
    # the descriptors, not sys.stdout: libraries and further processes of the run write to them directly
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # an error is the last thing that the log says
        yield
