"""A table as Markdown, HTML with its pictures, a plot and one JSON file a cell; the paper's values beside ours."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader

from experiments.plan import Cell, Table
from experiments.record import Record, write_atomically
from experiments.runner import Missing, Runner

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

HTML = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("report.html")


@dataclass(frozen=True)
class Figure:
    """What a cell has come to.

    Args:
        cell: which.
        records: of its seeds that are finished.
        missing: why it has no value, if it has none.
    """

    cell: Cell
    records: tuple[Record, ...]
    missing: str = ""

    @property
    def value(self) -> float | None:
        """Mean over the seeds."""
        return None if self.missing else statistics.fmean(self._values(self.cell.metric))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval: over seeds where there are several (mean and 1.96 standard errors), else over the samples of the one."""
        if self.missing:
            return None
        values = self._values(self.cell.metric)
        if len(values) > 1:
            half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
            return statistics.fmean(values) - half, statistics.fmean(values) + half
        ends = [*self._values(f"{self.cell.metric}_low"), *self._values(f"{self.cell.metric}_high")]
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def _values(self, metric: str) -> list[float]:
        """Of each seed that has one."""
        return [self.cell.scale * record.metrics[metric] for record in self.records if metric in record.metrics]

    @property
    def converged(self) -> bool:
        """Whether the fits behind it are known to have stopped improving; a figure that does not judge a net needs none."""
        return not self.cell.trained or all(record.steps == 0 or record.still_falls is False for record in self.records)


@dataclass(frozen=True)
class Report:
    """A table with what its runs have come to."""

    table: Table
    figures: tuple[Figure, ...]
    fits: tuple[Record, ...]
    pictures: tuple[tuple[Path, str], ...]

    @classmethod
    def of(cls, table: Table, runner: Runner) -> Report:
        """Collect what is there."""
        trained = (run for run in table.runs() if run.command == "fit" and not run.timed)
        fits = [record for run in trained if (record := runner.record(run)) is not None]
        pictures = [
            (path, picture.caption)
            for picture in table.pictures
            if runner.record(picture.run) is not None
            for path in sorted(runner.folder(picture.run).glob(picture.file))
        ]
        return cls(table, tuple(_figure(cell, runner) for cell in table.cells), tuple(fits), tuple(pictures))

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.table.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.table.cells))

    @property
    def provenance(self) -> list[str]:
        """Where and from what the figures come: a line for each commit and machine."""
        records = [*(record for figure in self.figures for record in figure.records), *self.fits]
        lines = {
            f"budget {record.budget}, commit {record.provenance['commit']}, {record.provenance['hardware']}, "
            + ", ".join(f"{name} {version}" for name, version in record.provenance["versions"].items())
            for record in records
        }
        return sorted(lines)

    def at(self, row: str, column: str) -> Figure | None:
        """The figure in a place, if the table has one there."""
        return next((figure for figure in self.figures if (figure.cell.row, figure.cell.column) == (row, column)), None)

    def write(self, folder: Path) -> Path:
        """Write everything into a folder; returns the Markdown file."""
        own = folder / self.table.name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        for figure in self.figures:
            name = f"{figure.cell.row}_{figure.cell.column}".lower()
            _write_json(own / "".join(c if c.isalnum() else "_" for c in name).strip("_"), figure)
        shown = [(_copy(path, own, number), caption) for number, (path, caption) in enumerate(self.pictures, 1)]
        if any(figure.value is not None for figure in self.figures):
            self.plot(own / "plot.png")
            shown.insert(0, (f"{self.table.name}/plot.png", "ours and the paper's"))
        write_atomically(folder / f"{self.table.name}.md", self.markdown(shown))
        write_atomically(folder / f"{self.table.name}.html", HTML.render(report=self, pictures=shown, entry=entry, paper=_paper))
        return folder / f"{self.table.name}.md"

    def markdown(self, pictures: list[tuple[str, str]]) -> str:
        """The report as Markdown."""
        return "\n".join(_lines(self, pictures)) + "\n"

    def plot(self, path: Path) -> None:
        """Our values with their intervals and the paper's, a panel a column."""
        columns = self.columns
        figure, axes = plt.subplots(
            1, len(columns), figsize=(3.2 * len(columns) + 1.5, 0.45 * len(self.rows) + 1.6), squeeze=False
        )
        for place, column in zip(axes[0], columns, strict=True):
            _panel(place, column, [(row, at) for row in self.rows if (at := self.at(row, column)) is not None])
        figure.tight_layout()
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)

    def rankings(self) -> list[str]:
        """For each ranked column the order as far as intervals separate it."""
        return [line for column, better in self.table.better if (line := self._ranking(column, better))]

    def _ranking(self, column: str, better: str) -> str:
        here = [figure for figure in self.figures if figure.cell.column == column and figure.value is not None]
        sound = [figure for figure in here if figure.converged and figure.interval is not None]
        if len(sound) < 2:
            return f"{column}: no ranking, fewer than two cells are converged and have an interval."
        ordered = sorted(sound, key=lambda figure: figure.value or 0.0, reverse=better == "high")
        ours = ordered[0].cell.row
        for one, two in pairwise(ordered):
            ours += f" {'>' if _separate(one, two) else '~'} {two.cell.row}"
        papers = [figure for figure in sound if figure.cell.paper is not None]
        order = sorted(papers, key=lambda figure: figure.cell.paper or 0.0, reverse=better == "high")
        paper = f" The paper's order: {', '.join(figure.cell.row for figure in order)}." if len(order) > 1 else ""
        return f"{column} ({better} is better): {ours}.{paper}"


def _figure(cell: Cell, runner: Runner) -> Figure:
    if not cell.runs:
        return Figure(cell, (), "not part of this budget")
    records = [(run, runner.record(run)) for run in cell.runs]
    done = tuple(record for _, record in records if record is not None and cell.metric in record.metrics)
    for run, record in records:
        if record is None:
            return Figure(cell, done, runner.failures.get(run.name, "not run yet"))
        if cell.metric not in record.metrics:
            return Figure(cell, done, f"the run has no {cell.metric}")
    return Figure(cell, _with_fits(cell, runner, done))


def _with_fits(cell: Cell, runner: Runner, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records with the learning curve of the fit behind each evaluation."""
    return tuple(_with_fit(record, run.weights, runner) for run, record in zip(cell.runs, records, strict=True))


def _with_fit(record: Record, weights: object, runner: Runner) -> Record:
    if weights is None:
        return record
    try:
        fit = runner.record(runner.chosen(weights))  # type: ignore[arg-type]
    except Missing:
        return record
    return record if fit is None else Record(**{**vars(record), "steps": fit.steps, "curve": fit.curve})


def _separate(one: Figure, two: Figure) -> bool:
    first, second = one.interval, two.interval
    return first is not None and second is not None and (first[1] < second[0] or second[1] < first[0])


def entry(figure: Figure | None) -> str:
    """What stands in a table's place: value, interval, and whether it may be trusted."""
    if figure is None:
        return ""
    if figure.value is None:
        return "missing"
    digits = figure.cell.digits
    interval = figure.interval
    shown = f"{figure.value:.{digits}f}"
    if interval is not None:
        shown += f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return shown + ("" if figure.converged else " (not converged)")


def _paper(figure: Figure | None) -> str:
    return "" if figure is None or figure.cell.paper is None else f"{figure.cell.paper:g}"


def _lines(report: Report, pictures: list[tuple[str, str]]) -> list[str]:
    table = report.table
    lines = [f"# {table.title}", "", table.setting, "", f"**Beside the paper.** {table.caveat}", ""]
    if report.figures:
        head = [cell for column in report.columns for cell in (column, "paper")]
        lines += ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
        for row in report.rows:
            places = [report.at(row, column) for column in report.columns]
            lines.append(f"| {row} | " + " | ".join(f"{entry(place)} | {_paper(place)}" for place in places) + " |")
        lines += ["", "Brackets: 95 % intervals, over seeds where there are several, else over the samples of the one."]
    rankings = report.rankings()
    if rankings:
        lines += ["", "Orders of the converged cells, > where intervals separate and ~ where they do not:", ""]
        lines += [f"- {line}" for line in rankings]
    missing = [f"- missing: {at.cell.row}, {at.cell.column}: {at.missing}" for at in report.figures if at.missing]
    lines += ["", *missing] if missing else []
    if report.fits:
        lines += [
            "",
            "## Training",
            "",
            "| fit | steps | seconds | peak memory | validation at the end | seed |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_fit_row(record) for record in report.fits]
    commands = {record.command: record for figure in report.figures for record in figure.records}
    if commands:
        lines += ["", "## Evaluations", "", "| run | seconds | peak memory |", "|---|---|---|"]
        lines += [f"| {r.name} | {r.seconds:.0f} | {r.peak_memory / 2**20:.0f} MiB |" for r in commands.values()]
    lines += ["", "Each cell's JSON file has its exact commands.", "", *(f"- {line}" for line in report.provenance)]
    return lines + [line for file, caption in pictures for line in ("", f"![{caption}]({file})", "", caption)]


def _fit_row(record: Record) -> str:
    last = f"{record.curve[-1][1]:.4f}" if record.curve else ""
    last += " (still falling)" if record.still_falls else ""
    memory = f"{record.peak_memory / 2**20:.0f} MiB"
    return f"| {record.name} | {record.steps} | {record.seconds:.0f} | {memory} | {last} | {record.seed} |"


def _write_json(path: Path, figure: Figure) -> None:
    """One cell: its value, where it comes from, what it cost; paths as seen from the project, not of this machine."""
    cell = {name: value for name, value in asdict(figure.cell).items() if name != "runs"}
    values = {
        "value": figure.value,
        "interval": figure.interval,
        "converged": figure.converged,
        "missing": figure.missing or None,
    }
    records = [asdict(record) for record in figure.records]
    for record in records:
        record["data"] = {Path(folder).name: checksum for folder, checksum in record["data"].items()}
        record["command"] = record["command"].replace(f"{Path.cwd()}/", "")
    write_atomically(path.with_suffix(".json"), json.dumps(cell | values | {"runs": records}, indent=1))


def _copy(path: Path, folder: Path, number: int) -> str:
    name = f"{number:02d}_{path.name}"
    shutil.copyfile(path, folder / name)
    return f"{folder.name}/{name}"


def _panel(axes: plt.Axes, column: str, figures: list[tuple[str, Figure]]) -> None:
    for place, (_, figure) in enumerate(figures):
        if figure.value is not None:
            low, high = figure.interval or (figure.value, figure.value)
            error = [[max(0.0, figure.value - low)], [max(0.0, high - figure.value)]]
            shade = {} if figure.converged else {"alpha": 0.4}
            axes.errorbar(
                figure.value,
                place,
                xerr=error,
                fmt="o",
                color="tab:blue",
                capsize=3,
                label="ours" if place == 0 else None,
                **shade,
            )
        if figure.cell.paper is not None:
            axes.plot(figure.cell.paper, place, "x", color="tab:orange")
    axes.set_yticks(range(len(figures)), [row for row, _ in figures])
    axes.invert_yaxis()
    axes.set_title(f"{column}\n(o ours, x paper)", fontsize="small")
    axes.grid(alpha=0.3)
