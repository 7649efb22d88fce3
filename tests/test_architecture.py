"""Imports point inward: core <- models <- tasks, with data and callbacks beside them and the CLI on top."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import jiio_lightning

PACKAGE = Path(jiio_lightning.__file__).parent
EVERYTHING = {path.stem for path in PACKAGE.iterdir() if path.stem != "__pycache__"} | {"cli", "lightning", "pytorch_lightning"}
ALLOWED = {
    "core": {"core"},
    "models": {"core", "models"},
    "data": EVERYTHING - {"core", "models", "tasks", "callbacks", "cli"},
    "tasks": EVERYTHING - {"data", "cli", "reproduce"},
}


def imports(path: Path) -> set[str]:
    """The project's folders, and Lightning, that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = {tuple(name.split(".")) for name in names}
    inside = {name[1] for name in parts if name[0] == "jiio_lightning" and len(name) > 1}
    return inside | {name[0] for name in parts if name[0] in {"lightning", "pytorch_lightning"}}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_inward(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(PACKAGE)): imports(file) - ALLOWED[folder] for file in files}
    assert not {file: names for file, names in wrong.items() if names}
