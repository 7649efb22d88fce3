"""Fragments of a run file on the command line: ``--solver conf/solver/nested.yaml`` takes the place of what was there.

jsonargparse merges: a class that is swapped keeps every old argument that the new one also has. A fragment would then mean
something else on each run file (PGD with the joint method's schedule of steps, a net with another one's downscale). So what a
fragment does not say is filled in with the defaults of its classes before it is parsed.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

MERGED = ("config", "trainer", "data", "model", "ckpt_path")
"""Options whose files do add to what is there."""


def whole_fragments(arguments: Sequence[str]) -> list[str]:
    """The same command with the YAML files of swapped objects replaced by all that they mean, as JSON."""
    whole: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            whole.append(f"{option}={_whole(option, value)}")
        else:
            whole.append(_whole(whole[-1], argument) if whole else argument)
    return whole


def _whole(option: str, value: str) -> str:
    name = option.removeprefix("--")
    if not option.startswith("--") or name in MERGED or not value.endswith(".yaml") or not Path(value).is_file():
        return value
    said = yaml.safe_load(Path(value).read_text())
    return json.dumps(completed(said)) if _has_class(said) else value


def _has_class(said: Any) -> bool:
    """Whether a fragment is an object, or a group of them as ``solver`` and ``solvers`` are."""
    return isinstance(said, dict) and ("class_path" in said or any(map(_has_class, said.values())))


def completed(said: Any) -> Any:
    """A part of a fragment with the defaults of its classes for what it leaves out."""
    if isinstance(said, list):
        return [completed(part) for part in said]
    if not isinstance(said, dict):
        return said
    parts = {name: completed(part) for name, part in said.items()}
    if "class_path" in said:
        parts["init_args"] = defaults(said["class_path"]) | parts.get("init_args", {})
    return parts


def defaults(class_path: str) -> dict[str, Any]:
    """The plain default arguments of a class; none for a class that cannot be found, which the parser reports."""
    module, _, name = class_path.rpartition(".")
    try:
        made = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return {}
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if p.default is None or isinstance(p.default, bool | int | float | str | tuple)}
