"""``python -m experiments``: the papers' tables and figures, benchmarks, and jiio's commands for the baselines' run files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jsonargparse import ArgumentParser, auto_cli
from jsonargparse.typing import PositiveFloat, PositiveInt

from experiments.benchmarks.loader import loader
from experiments.benchmarks.memory import memory
from experiments.benchmarks.overhead import overhead
from experiments.benchmarks.representation import representation
from experiments.benchmarks.roofline import roofline
from experiments.benchmarks.scale import scale
from experiments.benchmarks.torchdeq import torchdeq
from experiments.executor import Processes
from experiments.plan import Budget, Run, Table
from experiments.record import LABORATORY
from experiments.report import Report
from experiments.runner import Runner
from experiments.tables import TABLES
from jiio_lightning.cli import JIIOCLI, keep_freed_memory
from jiio_lightning.cli import main as jiio
from jiio_lightning.commands.provenance import provenance
from jiio_lightning.data import DataError

if TYPE_CHECKING:  # submitit is an extra
    from experiments.cluster import Cluster

BENCHMARKS = {
    "overhead": overhead,
    "loader": loader,
    "scale": scale,
    "roofline": roofline,
    "memory": memory,
    "representation": representation,
    "torchdeq": torchdeq,
}
WORDS = (
    f"Tables and figures: {', '.join(TABLES)}, all. Benchmarks: {', '.join(BENCHMARKS)}. Commands of jiio: "
    f"{', '.join(JIIOCLI.subcommands())}; each has --help."
)
"""The first words that are understood."""
FLAGS = {
    "show": "print the command of each run, and run nothing",
    "queue": "print where each run stands, and run nothing",
    "cancel": "end the runs that are submitted; a fit saves its checkpoint",
}
FIRST_HOUR = "gpu-first-hour"
"""The table whose budget is gpu unless given; no part of all the tables on a processor, or at the paper's length."""
DEFAULT_JOBS = {Budget.SMOKE: 2, Budget.CPU: 2, Budget.GPU: 1, Budget.PAPER: 1}
"""Small nets do not keep two cores busy: two of them at once finish sooner than one after the other with two threads each."""


def reproduce(
    name: str,
    budget: Literal["smoke", "cpu", "gpu", "paper"] | None = None,
    store: str = "runs/reproduce",
    results: str | None = None,
    jobs: PositiveInt | None = None,
    minutes: PositiveFloat | None = None,
    run: bool = True,
    executor: Literal["local", "submitit", "slurm"] = "local",
    partition: str | None = None,
    sbatch: dict[str, str | int] | None = None,
    show: bool = False,
    queue: bool = False,
    cancel: bool = False,
) -> int:
    """Make a table or figure of the paper: run what is not done yet, then write the report.

    Args:
        name: which, such as table1 or fig3; "all" for all of them.
        budget: smoke (digits, no claim), cpu (two cores, minutes), gpu (one, half an hour), paper (its nets, steps and GPUs);
            default cpu, of gpu-first-hour gpu.
        store: where the runs live; one that is there and still holds is not run again.
        results: folder of the reports; default results for cpu, results/BUDGET for gpu and paper, STORE/smoke/results for smoke.
        jobs: runs at once, each with its share of the cores; default 2 for smoke and cpu, 1 for gpu and paper; no limit
            on slurm.
        minutes: end what runs after so long and write the report of what is there; the same command goes on.
        run: false writes the report of what is there.
        executor: local, whose runs end with this command; slurm and submitit (this machine), whose runs go on: the same command
            finds them again.
        partition: of slurm.
        sbatch: further options of sbatch, such as '{"account": "abc", "qos": "long"}'.
        show: print the command of each run, and run nothing.
        queue: print where each run stands, and run nothing.
        cancel: end the runs that are submitted; a fit saves its checkpoint.

    Returns:
        0, 1 if something is missing, 2 if there is no such table, executor or device.
    """
    if name not in (*TABLES, "all"):
        print(f"error: there is no {name!r}: {WORDS}", file=sys.stderr)
        return 2
    kind = Budget(budget or ("gpu" if name == FIRST_HOUR else "cpu"))
    try:
        place = _executor(executor, {"partition": partition} if partition else {}, sbatch or {})
    except ValueError as why:
        print(f"error: {why}", file=sys.stderr)
        return 2
    runner = Runner(LABORATORY.parent, Path(store).resolve() / kind, kind, _at_once(executor, kind, jobs), place)
    if minutes is not None:
        runner.deadline = time.monotonic() + 60 * minutes
    everything = TABLES.keys() - ({FIRST_HOUR} if kind in (Budget.CPU, Budget.PAPER) else set())
    tables = [make(kind) for table, make in TABLES.items() if table == name or (name == "all" and table in everything)]
    if show:
        print("\n\n".join(dict.fromkeys(runner.show(wanted) for table in tables for wanted in table.runs())))
        return 0
    usual = {Budget.SMOKE: Path(store) / kind / "results", Budget.CPU: Path("results")}.get(kind, Path("results") / kind)
    folder = usual if results is None else Path(results)
    wanted = list(dict.fromkeys(needed for table in tables for needed in table.runs()))
    if queue or cancel:
        return _look(runner, wanted, cancel)
    if run and executor != "slurm" and kind in (Budget.GPU, Budget.PAPER) and not torch.cuda.is_available():
        print(f"error: the budget {kind} needs a GPU, and torch {torch.__version__} finds none here", file=sys.stderr)
        return 2
    if run and place.outlives:  # all in the queue at once; here a table is written as soon as it is done
        runner.execute(wanted)
    return max(_make(table, runner, folder, run and not place.outlives) for table in tables)


def _executor(name: str, partition: dict[str, str], sbatch: dict[str, Any]) -> Processes | Cluster:
    """Raises ValueError if it is not here."""
    if name != "slurm" and (partition or sbatch):
        raise ValueError("--partition and --sbatch are of --executor slurm")
    if name == "local":
        return Processes()
    if name == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ValueError("there is no sbatch and srun here: start this where jobs are submitted, or take --executor submitit")
    try:
        from experiments.cluster import Cluster
    except ImportError as error:
        raise ValueError(f"--executor {name} needs submitit: pip install 'jiio-lightning[cluster]' ({error})") from error
    return Cluster(name, {**partition, **sbatch})


def _at_once(executor: str, budget: Budget, jobs: int | None) -> int:
    if executor == "slurm":
        return jobs or sys.maxsize
    usual = jobs or DEFAULT_JOBS[budget]
    return min(usual, os.cpu_count() or 1) if executor == "submitit" else usual


def _look(runner: Runner, runs: list[Run], cancel: bool) -> int:
    if cancel:
        for handle in filter(None, [runner.submitted(run) for run in runs]):
            handle.cancel()
    print("\n".join(runner.queue(runs)))
    return 0


def _make(table: Table, runner: Runner, folder: Path, run: bool) -> int:
    print(f"{table.name}: {table.title}", file=sys.stderr)
    if run:
        runner.execute(table.runs())
    report = Report.of(table, runner)
    print(report.write(folder))
    for reason in dict.fromkeys(result.missing for result in report.results if result.missing):
        print(f"  missing: {reason}", file=sys.stderr)
    return int(len(report.records) < len(table.runs()))


def main(args: list[str] | None = None) -> int:
    """``python -m experiments TABLE``, a benchmark, or a command of jiio; returns the exit status."""
    given = sys.argv[1:] if args is None else args
    command = given[0] if given else ""
    if command in JIIOCLI.subcommands():
        return jiio(given)
    if command in BENCHMARKS:
        keep_freed_memory()  # as `jiio` does
        try:
            measured = auto_cli(BENCHMARKS[command], args=given[1:], prog=f"python -m experiments {command}")
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(json.dumps({"result": measured, "provenance": provenance()}, indent=1))
        return 0
    parser = ArgumentParser(prog="python -m experiments", description=f"{__doc__} {WORDS}")
    parser.add_function_arguments(reproduce, skip={*FLAGS}, as_positional=True, as_group=False)
    for flag, does in FLAGS.items():
        parser.add_argument(f"--{flag}", action="store_true", help=does)
    options = parser.parse_args(given)
    try:
        return reproduce(**vars(options))
    except KeyboardInterrupt:
        submitted = "" if options.executor == "local" else "; submitted runs go on: --queue shows them, --cancel ends them"
        print(f"interrupted: the same command goes on from here{submitted}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
