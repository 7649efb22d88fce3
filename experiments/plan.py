"""What a table is: cells, each the figure of a run; a run is one command with a run file, overrides and perhaps weights."""

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
    """A file that one run has made and another reads.

    Args:
        place: where the reader expects it, below its own folder.
        run: that makes it.
        pattern: of its name below that run's folder; the newest counts.
    """

    place: str
    run: Run
    pattern: str


@dataclass(frozen=True)
class Run:
    """One command: ``jiio COMMAND --config CONFIG OVERRIDES [--ckpt_path WEIGHTS]``.

    Args:
        name: its folder below the budget's, and its name in the report.
        command: of ``jiio``.
        config: run file, relative to the project's root.
        overrides: further arguments; one that is the path of a YAML file below the project's root is a fragment.
        weights: the fit, or the learned start, whose last checkpoint (``last.ckpt``) it evaluates.
        files: of other runs that it reads.
        curve: validation figure of a fit that says whether it still improves; lower is better.
        timed: whether it measures times, and so runs alone; a comparison always does, and a front.
    """

    name: str
    command: Literal["fit", "learn_start", "test", "compare", "front", "sample", "attack"]
    config: str
    overrides: tuple[str, ...] = ()
    weights: Run | Choice | None = None
    files: tuple[File, ...] = ()
    curve: str = "val/error"
    timed: bool = False

    @property
    def alone(self) -> bool:
        """Whether nothing else may run beside it."""
        return self.timed or self.command in ("compare", "front")


@dataclass(frozen=True)
class Choice:
    """The best of several fits, by a figure that none of them was trained or tested on.

    Args:
        runs: one for each value that is tried.
        metric: validation figure at the end of a fit.
        better: which end of it is.
    """

    runs: tuple[Run, ...]
    metric: str
    better: Literal["low", "high"] = "low"


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Args:
        row, column: where it stands.
        runs: one for each seed; the value is their mean, the spread their standard deviation. None: not part of the budget.
        metric: key of the value in a run's record; ``METRIC_low`` and ``METRIC_high`` are its 95 % interval, if there.
        paper: the paper's value.
        over: key of a second value, by which the first is divided.
        scale: factor on our value, such as 1000 for milliseconds.
        digits: after the decimal point.
        trained: whether it says how good a net is, and so means little before training has converged.
    """

    row: str
    column: str
    runs: tuple[Run, ...]
    metric: str
    paper: float | None = None
    scale: float = 1.0
    digits: int = 2
    trained: bool = True
    over: str | None = None


@dataclass(frozen=True)
class Picture:
    """An image file that a run has made.

    Args:
        run: which.
        file: pattern below the run's folder.
        caption: what it shows.
    """

    run: Run
    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table or a figure of the paper.

    Args:
        name: ``table1``, ``fig4``.
        title: what it shows, with its place in the paper.
        setting: data, nets and steps of this budget, in a sentence or two.
        caveat: what cannot be compared with the paper's figures, and why.
        cells: its figures.
        better: which end is, for each column; a column that is missing is not ranked.
        pictures: its images.
    """

    name: str
    title: str
    setting: str
    caveat: str
    cells: tuple[Cell, ...] = ()
    better: tuple[tuple[str, Literal["low", "high"]], ...] = ()
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
    """The fits behind some weights."""
    if weights is None:
        return ()
    return weights.runs if isinstance(weights, Choice) else (weights,)
