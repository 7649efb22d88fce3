"""``jiio reproduce``: the paper's tables and figures, as runs and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from experiments.plan import Budget, Table
from experiments.report import Report
from experiments.runner import Runner
from experiments.tables import TABLES

DEFAULT_JOBS = {Budget.SMOKE: 2, Budget.CPU: 2, Budget.GPU: 1, Budget.PAPER: 1}
"""Small nets do not keep two cores busy: two of them at once finish sooner than one after the other with two threads each."""


def reproduce(
    name: str,
    budget: Literal["smoke", "cpu", "gpu", "paper"] = "cpu",
    project: str = ".",
    store: str = "runs/reproduce",
    results: str | None = None,
    jobs: int | None = None,
    run: bool = True,
) -> int:
    """Make a table or figure of the paper: run what is not done yet, then write the report.

    Args:
        name: which, such as table1 or fig3; "all" for all of them.
        budget: smoke (digits, no claim), cpu (two cores, minutes), gpu (one, half an hour), paper (its nets, steps and GPUs).
        project: root of the checkout, with tasks/ and conf/.
        store: where the runs live; one that is there and still holds is not run again.
        results: folder of the reports; default results for cpu, results/BUDGET for gpu and paper, STORE/smoke/results for smoke.
        jobs: runs at once, each with its share of the cores; default 2 for smoke and cpu, 1 for gpu and paper.
        run: false writes the report of what is there.

    Returns:
        0, or 1 if a cell is missing.
    """
    if name not in (*TABLES, "all"):
        print(f"error: there is no {name!r}; there are {', '.join(TABLES)} and all", file=sys.stderr)
        return 2
    kind = Budget(budget)
    tables = [make(kind) for table, make in TABLES.items() if name in ("all", table)]
    runner = Runner(Path(project).resolve(), Path(store).resolve() / kind, kind, jobs or DEFAULT_JOBS[kind])
    folder = Path(results) if results is not None else _default_results(kind, Path(store))
    return max(_one(table, runner, folder, run) for table in tables)


def _one(table: Table, runner: Runner, folder: Path, run: bool) -> int:
    print(f"{table.name}: {table.title}", file=sys.stderr)
    if run:
        runner.execute(table.runs())
    report = Report.of(table, runner)
    path = report.write(folder)
    print(path)
    for figure in report.figures:
        if figure.missing:
            print(f"  missing: {figure.cell.row}, {figure.cell.column}: {figure.missing}", file=sys.stderr)
    absent = [wanted.name for wanted in table.runs() if runner.record(wanted) is None]
    return int(bool(absent))


def _default_results(budget: Budget, store: Path) -> Path:
    if budget is Budget.SMOKE:
        return store / budget / "results"
    return Path("results") if budget is Budget.CPU else Path("results") / budget
