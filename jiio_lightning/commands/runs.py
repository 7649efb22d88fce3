"""``jiio runs``: the run files that come with the package."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from jiio_lightning.files import write_text
from jiio_lightning.fragments import SHIPPED

FRAGMENT = re.compile(r"\.\./(conf/[\w/]+\.yaml)")
"""How a run file names one of its parts."""


def main(args: list[str]) -> int:
    """Run ``jiio runs ARGS``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="jiio runs", description="List the run files of the package; without a command, too.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="what each run file is for")
    copy = commands.add_parser("copy", help="copy a run file and its fragments, to edit them")
    copy.add_argument("name", help="as in the list, such as digits")
    copy.add_argument("folder", nargs="?", type=Path, default=Path(), help="gets tasks/NAME.yaml and conf/; default: here")
    given = parser.parse_args(args)
    if given.command != "copy":
        print("\n".join(listed()))
        return 0
    try:
        print("\n".join(copied(given.name, given.folder)))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def listed() -> list[str]:
    """A line for each run file: its path and the first line of its comment."""
    paths = sorted(SHIPPED.glob("tasks/*.yaml"))
    width = max(len(path.name) for path in paths)
    return [f"tasks/{path.name:{width}}  {path.read_text().splitlines()[0].removeprefix('# ')}" for path in paths]


def copied(name: str, folder: Path) -> list[str]:
    """Copy ``tasks/NAME.yaml`` and the fragments that it names into a folder, under the same paths.

    Returns:
        A line for each file. A fragment that is there already stays as it is.

    Raises:
        ValueError: if there is no such run file, or the folder has it already.
    """
    path = Path("tasks", f"{name.removeprefix('tasks/').removesuffix('.yaml')}.yaml")
    if not (SHIPPED / path).is_file():
        raise ValueError(f"there is no run file {name}: `jiio runs` lists them")
    if (folder / path).exists():
        raise ValueError(f"{folder / path} is there already, and is not replaced")
    said = []
    for part in (path, *map(Path, dict.fromkeys(FRAGMENT.findall((SHIPPED / path).read_text())))):
        there = (folder / part).exists()
        if not there:
            write_text(folder / part, (SHIPPED / part).read_text())
        said.append(f"{folder / part}{' stays as it is' if there else ''}")
    return said
