"""What a table is: cells, each a metric of a run; a run is one command with a run file, overrides and perhaps weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Budget(StrEnum):
    """How much a reproduction may cost."""

    SMOKE = "smoke"
    """Digits, seconds a cell: whether the machinery works, no claim."""
    CPU = "cpu"
    """Two cores and minutes: small nets on real data."""
    GPU = "gpu"
    """One modern GPU, at most half an hour."""
    PAPER = "paper"
    """The paper's own nets, batches, steps and GPUs."""


@dataclass(frozen=True)
class File:
    """A file that one run has made and another reads."""

    place: str  # where the reader expects it, below its working directory
    run: Run  # that makes it
    path: str  # below that run's folder


@dataclass(frozen=True)
class Limits:
    """What a run may take of a cluster, for each of its processes: one, or one for each GPU of its trainer."""

    hours: float = 1.0  # of all of it; what is longer is killed, and a fit goes on when it is submitted again
    memory: int = 8  # GB of the node, not of its GPUs
    cpus: int = 1


@dataclass(frozen=True)
class Run:
    """One command: ``jiio COMMAND --config CONFIG OVERRIDES [--ckpt_path WEIGHTS]``."""

    name: str  # its folder below the budget's, and its name in the report
    command: Literal["fit", "learn_start", "test", "compare", "sample", "attack"]
    config: str  # run file, relative to the project's root as are the fragments among the overrides
    overrides: tuple[str, ...] = ()
    weights: Run | Choice | None = None  # the fit, or the learned start, whose checkpoint it reads
    files: tuple[File, ...] = ()  # of other runs that it reads
    curve: str = "val/error"  # validation metric of a fit that says whether it still improves; lower is better
    timed: bool = False  # whether it measures times, and so runs alone; a comparison always does
    limits: Limits = Limits()

    @property
    def alone(self) -> bool:
        """Whether nothing else may run at the same time."""
        return self.timed or self.command == "compare"

    @property
    def program(self) -> str:
        """What executes it: the laboratory's command line where its settings name something of the laboratory's."""
        return "python -m experiments" if any("experiments" in text for text in (self.config, *self.overrides)) else "jiio"


@dataclass(frozen=True)
class Choice:
    """The best of several fits, by a metric that none of them was trained or tested on."""

    runs: tuple[Run, ...]  # one for each value that is tried
    metric: str  # of validation, at the end of a fit
    better: Literal["low", "high"] = "low"


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    row: str
    column: str
    runs: tuple[Run, ...]  # one for each seed; the value is their mean. None: not part of the budget
    metric: str  # key of the value in a run's record; METRIC_low and METRIC_high are its 95 % interval, if there
    paper: float | None = None
    scale: float = 1.0  # on our value, such as 1000 for milliseconds
    digits: int = 2  # after the decimal point
    trained: bool = True  # whether it says how good a net is, and so means little before training has converged
    over: str | None = None  # key of a second value, by which the first is divided


@dataclass(frozen=True)
class Picture:
    """An image file that a run has made."""

    run: Run
    file: str  # pattern below the run's folder
    caption: str


@dataclass(frozen=True)
class Table:
    """A table or a figure of the paper."""

    name: str  # table1, fig4
    title: str  # what it shows, with its place in the paper
    setting: str  # data, nets and steps of this budget, in a sentence or two
    caveat: str  # what cannot be compared with the paper's values, and why
    cells: tuple[Cell, ...] = ()
    better: tuple[tuple[str, Literal["low", "high"]], ...] = ()  # which end is, by column; others are not ranked
    pictures: tuple[Picture, ...] = ()

    def runs(self) -> list[Run]:
        """All runs in an order in which each comes after what it needs, each once."""
        wanted = [*(run for cell in self.cells for run in cell.runs), *(picture.run for picture in self.pictures)]
        return list(dict.fromkeys(needed for run in wanted for needed in _with_needs(run)))


def _with_needs(run: Run) -> Iterator[Run]:
    for needed in needs(run):
        yield from _with_needs(needed)
    yield run


def needs(run: Run) -> tuple[Run, ...]:
    """The runs whose results a run reads."""
    return (*trials(run.weights), *(file.run for file in run.files))


def trials(weights: Run | Choice | None) -> tuple[Run, ...]:
    """The runs behind some weights."""
    if weights is None:
        return ()
    return weights.runs if isinstance(weights, Choice) else (weights,)
