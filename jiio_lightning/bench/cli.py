"""``jiio bench``: measurements of the machinery, each printed as JSON with its provenance."""

from __future__ import annotations

import json

from jsonargparse import auto_cli

from jiio_lightning.bench.overhead import overhead
from jiio_lightning.provenance import provenance


def main(args: list[str] | None = None) -> int:
    """Run ``jiio bench ARGS``; returns the exit status."""
    result = auto_cli({"overhead": overhead}, args=args, prog="jiio bench")
    print(json.dumps({"result": result, "provenance": provenance()}, indent=1))  # noqa: T201
    return 0
