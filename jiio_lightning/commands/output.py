"""What commands write: JSON records with their provenance, and tables on the screen."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jiio_lightning.commands.provenance import provenance
from jiio_lightning.files import write_text


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record with its provenance, in a folder that is made if missing; a number that JSON does not have is null."""
    write_text(path, json.dumps(_plain(record | {"provenance": provenance()}), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(table: Table, written: str) -> None:
    """Print a table at its full width, though a file has 80 columns, and a line that says what was written."""
    console = Console(width=max(Console().width, Console(width=1000).measure(table).maximum))
    console.print(table)
    console.print(written, soft_wrap=True)
