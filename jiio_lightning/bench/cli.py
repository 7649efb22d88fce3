"""``jiio bench``: measurements of the machinery, each printed as JSON with its provenance, and the frontier of solvers."""

from __future__ import annotations

import json
from typing import Literal

from jsonargparse import auto_cli

from jiio_lightning.bench.overhead import overhead
from jiio_lightning.provenance import provenance


def front(budget: Literal["smoke", "cpu", "gpu", "paper"] = "cpu") -> int:
    """Measure every solver setting on the trained nets of the tables, which are trained first if they are not there: what
    ``jiio reproduce frontier`` does, which has more options.

    Args:
        budget: smoke (digits, no claim), cpu (two cores, minutes), gpu (one, half an hour), paper (its nets, steps and GPUs).

    Returns:
        0, or 1 if a cell is missing.
    """
    from jiio_lightning.reproduce.cli import reproduce  # here: its jobs are commands of the program that has this one

    return reproduce("frontier", budget)


def main(args: list[str] | None = None) -> int:
    """Run ``jiio bench ARGS``; returns the exit status."""
    result = auto_cli({"overhead": overhead, "front": front}, args=args, prog="jiio bench")
    if isinstance(result, int):
        return result
    print(json.dumps({"result": result, "provenance": provenance()}, indent=1))  # noqa: T201
    return 0
