"""``python -m experiments``: the papers' tables and figures, benchmarks, and jiio's commands for the baselines."""

from __future__ import annotations

import json
import sys

from jsonargparse import auto_cli

from experiments.benchmarks.overhead import overhead
from experiments.reproduce import reproduce
from jiio_lightning.cli import JIIOCLI
from jiio_lightning.cli import main as jiio
from jiio_lightning.commands.provenance import provenance


def main(args: list[str] | None = None) -> int:
    """``python -m experiments TABLE``, ``overhead``, or a command of jiio; returns the exit status."""
    given = sys.argv[1:] if args is None else args
    if given and given[0] in JIIOCLI.subcommands():
        return jiio(given)
    if given and given[0] == "overhead":
        measured = auto_cli(overhead, args=given[1:], prog="python -m experiments overhead")
        print(json.dumps({"result": measured, "provenance": provenance()}, indent=1))
        return 0
    return auto_cli(reproduce, args=given, prog="python -m experiments")


if __name__ == "__main__":
    sys.exit(main())
