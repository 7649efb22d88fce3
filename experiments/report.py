"""A table as one Markdown page, one JSON file and its pictures; the paper's values next to ours."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy import stats

from experiments.plan import Cell, Table
from experiments.record import Record
from experiments.runner import Runner
from jiio_lightning.files import write_text
from jiio_lightning.metrics.intervals import LEVEL

FEASIBLE = "Feasible cost: the inner loss at z re-solved at the returned x."


@dataclass(frozen=True)
class Result:
    """What a cell has come to."""

    cell: Cell
    records: tuple[Record, ...]  # of its runs, one for each seed
    fits: tuple[Record, ...] = ()  # behind them
    missing: str = ""  # why it has no value, if it has none

    @property
    def value(self) -> float | None:
        """Mean over the seeds."""
        return None if self.missing else statistics.fmean(self._values(self.cell.metric))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval: over seeds where there are several (Student's t, they are few), else over the samples of the one."""
        if self.missing:
            return None
        values = self._values(self.cell.metric)
        if len(values) > 1:
            half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
            return statistics.fmean(values) - half, statistics.fmean(values) + half
        ends = [*self._values(f"{self.cell.metric}_low"), *self._values(f"{self.cell.metric}_high")]
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def _values(self, metric: str) -> list[float]:
        """Of each seed that has one."""
        over = self.cell.over
        found = [record.metrics for record in self.records if metric in record.metrics]
        return [self.cell.scale * metrics[metric] / (1.0 if over is None else metrics[over]) for metrics in found]

    @property
    def converged(self) -> bool:
        """Whether the fits behind it are known to have stopped improving; a value that does not judge a net needs none."""
        return not self.cell.trained or all(fit.steps == 0 or fit.still_falls is False for fit in self.fits)

    def __str__(self) -> str:
        """Value, interval, and whether it may be trusted."""
        if self.value is None:
            return "missing"
        digits, interval = self.cell.digits, self.interval
        ends = "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
        return f"{self.value:.{digits}f}{ends}{'' if self.converged else ' (not converged)'}"

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        cell = self.cell
        metric = cell.metric if cell.over is None else f"{cell.metric} / {cell.over}"
        place = {"row": cell.row, "column": cell.column, "metric": metric, "scale": cell.scale, "paper": cell.paper}
        ours = {"value": self.value, "interval": self.interval, "converged": self.converged, "missing": self.missing or None}
        return place | ours | {"runs": [record.name for record in self.records]}


@dataclass(frozen=True)
class Report:
    """A table with what its runs have come to."""

    table: Table
    budget: str
    results: tuple[Result, ...]
    records: dict[str, Record]  # of all runs that are done, by name
    fits: tuple[str, ...]  # names of those that train a net
    pictures: tuple[tuple[Path, str], ...]  # files and captions

    @classmethod
    def of(cls, table: Table, runner: Runner) -> Report:
        """Collect what is there."""
        runs = table.runs()
        records = {run.name: record for run in runs if (record := runner.record(run)) is not None}
        fits = tuple(run.name for run in runs if run.command == "fit" and not run.timed and run.name in records)
        pictures = tuple(
            (path, picture.caption)
            for picture in table.pictures
            if picture.run.name in records
            for path in sorted(runner.folder(picture.run).glob(picture.file))
        )
        results = tuple(_result(cell, records, runner.failures) for cell in table.cells)
        return cls(table, runner.budget, results, records, fits, pictures)

    def at(self, row: str, column: str) -> Result | None:
        """What stands in a place, if the table has one there."""
        return next((result for result in self.results if (result.cell.row, result.cell.column) == (row, column)), None)

    def write(self, folder: Path) -> Path:
        """Write everything into a folder; returns the Markdown file."""
        name = self.table.name
        # pictures of an earlier report, of which there may have been more
        for old in (folder / name).glob("[0-9][0-9]_*"):
            old.unlink()
        shown = [(f"{name}/{number:02d}_{path.name}", path, caption) for number, (path, caption) in enumerate(self.pictures, 1)]
        for file, path, _ in shown:
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / file)
        write_text(folder / f"{name}.json", json.dumps(self.plain(), indent=1) + "\n")
        lines = [*self.lines(), *(line for file, _, caption in shown for line in ("", f"![{caption}]({file})", "", caption))]
        write_text(folder / f"{name}.md", "\n".join(lines) + "\n")
        return folder / f"{name}.md"

    def plain(self) -> dict[str, Any]:
        """For a JSON file; prepared data by name, not by folder."""
        table = self.table
        runs = {name: asdict(record) for name, record in self.records.items()}
        for run in runs.values():
            run["data"] = {Path(folder).name: checksum for folder, checksum in run["data"].items()}
        head = {"name": table.name, "title": table.title, "setting": table.setting, "caveat": table.caveat}
        return head | {"budget": self.budget, "cells": [result.plain() for result in self.results], "runs": runs}

    def lines(self) -> Iterator[str]:
        """The page, but for its pictures."""
        table = self.table
        yield from (f"# {table.title}", "", table.setting)
        heads, captions = (f"{cell.row} {cell.column}" for cell in table.cells), (text for _, text in self.pictures)
        if "feasible" in " ".join((table.title, table.setting, *heads, *captions)).lower():
            yield from ("", FEASIBLE)
        yield from ("", f"**What differs from the paper.** {table.caveat}", "", *self._grid(), *self._notes())
        if self.fits:
            yield from ("## Training", "", "| fit | steps | seconds | peak memory | validation at the end | seed |")
            yield "|---" * 6 + "|"
            yield from (*(_fit_row(self.records[name]) for name in self.fits), "")
        tests = {record.name: record for result in self.results for record in result.records}
        if tests:
            yield from ("## Evaluations", "", "| run | seconds | peak memory |", "|---" * 3 + "|")
            yield from (*(f"| {r.name} | {r.seconds:.0f} | {_mib(r)} |" for r in tests.values()), "")
        yield from (f"The exact command of each run is in [{table.name}.json]({table.name}.json).", "", *self.origins())

    def _grid(self) -> Iterator[str]:
        """The values; a row or column that has neither ours nor the paper's is left out."""
        filled = [r for r in self.results if r.value is not None or r.cell.paper is not None]
        if not filled:
            return
        rows, columns = (list(dict.fromkeys(getattr(r.cell, axis) for r in filled)) for axis in ("row", "column"))
        quoted = {r.cell.column for r in filled if r.cell.paper is not None}
        grid = [["", *(head for column in columns for head in ([column, "paper"] if column in quoted else [column]))]]
        for row in rows:
            grid.append([row])
            for column in columns:
                found = self.at(row, column)
                paper = found.cell.paper if found else None
                grid[-1] += [str(found or ""), *(["" if paper is None else f"{paper:g}"] if column in quoted else [])]
        if len(grid[0]) > 2 * len(grid):  # a wide table is easier to read on its side
            grid = [list(column) for column in zip(*grid, strict=True)]
        for number, line in enumerate(grid):
            yield f"| {' | '.join(line)} |"
            if number == 0:
                yield "|---" * len(line) + "|"
        yield ""

    def _over(self) -> str:
        """What an interval is over, where that is several runs."""
        runs: dict[str, int] = {}
        for result in self.results:  # a row may have columns of one run beside those of several
            if result.interval is not None:
                runs[result.cell.row] = max(runs.get(result.cell.row, 1), len(result.records))
        counts = {count: [row for row in runs if runs[row] == count] for count in sorted({*runs.values()} - {1})}
        several = [
            f"{count} runs ({'all rows' if len(rows) == len(runs) else '; '.join(rows)})" for count, rows in counts.items()
        ]
        return f"Student's t over seeds or pictures where there are {', '.join(several)}, else " if several else ""

    def _notes(self) -> Iterator[str]:
        """What the brackets are, what is missing and why, and orders."""
        if any(result.interval is not None for result in self.results):
            yield from (f"Brackets: 95 % intervals, {self._over()}over the samples of one run.", "")
        there = {_group(result.cell.row) for result in self.results if not result.missing}
        reasons: dict[str, list[str]] = defaultdict(list)
        for result in self.results:
            if result.missing:
                row = result.cell.row
                reasons[result.missing].append(row if _group(row) in there else _group(row))
        for reason, rows in reasons.items():
            yield from (f"Missing: {'; '.join(dict.fromkeys(rows))}. Why: {reason}.", "")
        if rankings := self.rankings():
            yield from ("Orders of the converged cells, > where intervals separate and ~ where they do not:", "")
            yield from (*(f"- {line}" for line in rankings), "")

    def origins(self) -> list[str]:
        """Where and from what the values come: a line for each commit and machine."""
        return sorted(
            {
                f"- budget {record.budget}, commit {record.provenance['commit']}, {record.provenance['hardware']}, "
                + ", ".join(f"{name} {version}" for name, version in record.provenance["versions"].items())
                for record in self.records.values()
            }
        )

    def rankings(self) -> list[str]:
        """For each ranked column the order as far as intervals separate it."""
        return [line for column, better in self.table.better if (line := self._ranking(column, better == "high"))]

    def _ranking(self, column: str, high: bool) -> str:
        here = [result for result in self.results if result.cell.column == column]
        sound = [result for result in here if result.converged and result.interval is not None]
        if len(sound) < 2:
            return f"{column}: no ranking, fewer than two cells are converged and have an interval."
        ordered = sorted(sound, key=lambda result: result.value or 0.0, reverse=high)
        ours = ordered[0].cell.row
        for one, two in pairwise(ordered):
            ours += f" {'>' if _separate(one, two) else '~'} {two.cell.row}"
        papers = [result for result in sound if result.cell.paper is not None]
        order = sorted(papers, key=lambda result: result.cell.paper or 0.0, reverse=high)
        paper = f" The paper's order: {', '.join(result.cell.row for result in order)}." if len(order) > 1 else ""
        return f"{column} ({'high' if high else 'low'} is better): {ours}.{paper}"


def _result(cell: Cell, records: dict[str, Record], failures: dict[str, str]) -> Result:
    if not cell.runs:
        return Result(cell, (), missing="not part of this budget")
    done = tuple(records[run.name] for run in cell.runs if run.name in records)
    absent = [failures.get(run.name, "not run yet") for run in cell.runs if run.name not in records]
    wanted = [metric for metric in (cell.metric, cell.over) if metric is not None]
    absent += [f"the run has no {metric}" for metric in wanted for record in done if metric not in record.metrics]
    if absent:  # a mean over some of the seeds would be another value than the table says
        return Result(cell, done, missing=absent[0])
    return Result(cell, done, tuple(records.get(record.weights or "", record) for record in done))


def _group(row: str) -> str:
    """Rows of one net or problem are called ``GROUP: ROW``."""
    return row.partition(": ")[0]


def _separate(one: Result, two: Result) -> bool:
    first, second = one.interval, two.interval
    return first is not None and second is not None and (first[1] < second[0] or second[1] < first[0])


def _fit_row(record: Record) -> str:
    last = f"{record.curve[-1][1]:.4f}" if record.curve else ""
    last += " (still falling)" if record.still_falls else ""
    seconds = f"{record.seconds:.0f}{' (its last part: it was cut off before)' if record.resumed else ''}"
    return f"| {record.name} | {record.steps} | {seconds} | {_mib(record)} | {last} | {record.seed} |"


def _mib(record: Record) -> str:
    return f"{record.peak_memory / 2**20:.0f} MiB"
