"""What a command line may name: classes of known modules, the package's run files, and fragments of them made whole."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib import import_module
from math import isfinite
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import Namespace, set_parsing_settings

KNOWN = ("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "torchmetrics", "jiio_lightning", "experiments")
"""Packages whose classes a run file may name. Any other module is code of its author: ``--allow`` has to name it."""
ALLOW = "--allow"

_named: list[str] = []  # by --allow, while a command line is read and run


@contextmanager
def allowing(arguments: Sequence[str]) -> Iterator[list[str]]:
    """A command line without its ``--allow MODULE``; only KNOWN and these modules can be imported by name meanwhile.

    Not an option of the parser, which takes options from run files too, and imports while it reads them.
    """
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        option, _, module = argument.partition("=")
        if option != ALLOW:
            rest.append(argument)
        elif module := module or next(given, ""):
            _named.append(module)
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=[*KNOWN, *_named], instantiate_subclass_spec_in_any=False
    )
    try:
        yield rest
    finally:
        set_parsing_settings(import_path_denylist=[name for name in _named if name not in KNOWN])
        _named.clear()


def may_import(path: str) -> bool:
    """Whether a class path is of a module that may be imported."""
    return any(f"{path}.".startswith(f"{module}.") for module in (*KNOWN, *_named))


def check_values(said: Any, key: str = "") -> None:
    """Refuse, by a ValueError, what no option means: a function in the place of a class, which would be called with the arguments
    of a run file, and a number that is not finite."""
    if isinstance(said, Namespace | dict):
        path = said.get("class_path")
        if isinstance(path, str) and not inspect.isclass(locate(path)):
            raise ValueError(f"{key}: {path} is not a class, and only classes can be named")
        for name, value in vars(said).items() if isinstance(said, Namespace) else said.items():
            check_values(value, f"{key}.{name}".lstrip("."))
    elif isinstance(said, list | tuple):
        for value in said:
            check_values(value, key)
    elif isinstance(said, float) and not isfinite(said):
        raise ValueError(f"{key}: {said} is not a finite number")
    elif inspect.isroutine(said):
        raise ValueError(f"{key}: {said.__module__}.{said.__qualname__} is not a class, and only classes can be named")


PACKAGE = Path(__file__).parent
SHIPPED = next(root for root in (PACKAGE / "run_files", PACKAGE.parent) if root.is_dir())
"""Where the run files in ``tasks/`` and their fragments in ``conf/`` are: copied into an installed package, else the checkout."""


def shipped(path: str) -> Path:
    """A file that a command names: the one of the working directory, or else the package's own of that name.

    >>> shipped("tasks/digits.yaml").read_text().splitlines()[0]
    '# JIIO generator on 8x8 digits: Sec. 4.1 in minutes on two cores.'
    >>> shipped("tasks/of_your_own.yaml")
    PosixPath('tasks/of_your_own.yaml')
    """
    here, there = Path(path), SHIPPED / path
    return there if not here.exists() and here.parts[:1] in (("tasks",), ("conf",)) and there.is_file() else here


MERGED = ("config", "trainer", "data", "model")
"""Options whose files add to what is there; those of others take its place."""
PATHS = ("trainer.default_root_dir", "ckpt_path", "out", "name")
"""Options that name files themselves."""


def whole_fragments(arguments: Sequence[str]) -> list[str]:
    """The same command with run files of the package by their whole paths, and the YAML files of swapped objects replaced by
    all that they mean, as JSON.

    jsonargparse merges: a class that is swapped keeps every old argument that the new one also has. A fragment would then mean
    something else on each run file (PGD with the joint method's schedule of steps, a net with another one's downscale). So what a
    fragment does not say is filled in with the defaults of its classes before it is parsed.
    """
    whole: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            whole.append(f"{option}={_whole(option, value)}")
        else:
            whole.append(_whole(whole[-1], argument) if whole else argument)
    return whole


def _whole(option: str, value: str) -> str:
    name = "config" if option == "-c" else option.removeprefix("--")
    if not option.startswith("-") or name in PATHS or not value.endswith(".yaml"):
        return value
    value = str(shipped(value))
    if name == "config":
        return value
    if not Path(value).is_file():  # here: jsonargparse would list every type that it tried
        raise FileNotFoundError(f"there is no {value}, which {option} names")
    if name in MERGED:
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
        whole = defaults(said["class_path"])
        for name, given in parts.get("init_args", {}).items():
            is_group = isinstance(whole.get(name), dict) and isinstance(given, dict) and "class_path" not in given
            whole[name] = whole[name] | given if is_group else given
        parts["init_args"] = whole
    return parts


def defaults(class_path: str) -> dict[str, Any]:
    """The default arguments of a class that are plain, or dataclasses of plain fields; none for one that may not be imported."""
    module, _, name = class_path.rpartition(".")
    if not may_import(class_path):
        return {}
    try:
        made = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return {}
    parameters = inspect.signature(made).parameters.values()
    usual = {p.name: _fields(p.default) if is_dataclass(type(p.default)) else p.default for p in parameters}
    return {name: value for name, value in usual.items() if _is_plain(value)}


def _fields(group: Any) -> dict[str, Any]:
    return {field.name: getattr(group, field.name) for field in fields(group)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str | tuple)
