"""The order of rooms: a file imports only from its own room and from those before it."""

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ORDER = (
    "randomness",
    "files",
    "messages",
    "core",
    "models",
    "starts",
    "attacks",
    "metrics",
    "tasks",
    "data",
    "callbacks",
    "fragments",
    "commands",
    "cli",
    "experiments",
)
FACE = {"DEQ", "Augmented", "InnerProblem", "Joint", "Nested", "__version__"}
"""What the package itself exports."""
LIGHTNING_FREE = {"randomness", "files", "core", "models", "starts", "attacks"}
FILES = [path for folder in ("jiio_lightning", "experiments") for path in sorted((REPO / folder).rglob("*.py"))]


def room(module: str) -> str | None:
    """The room of a dotted name; None for a library, and for the package's own face."""
    first, *rest = module.split(".")
    if first == "experiments":
        return first
    return rest[0] if first == "jiio_lightning" and rest and rest[0] not in FACE else None


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_file_imports_from_rooms_before_its_own(path):
    own = room(".".join(path.relative_to(REPO).with_suffix("").parts))
    if own in ("__init__", "__main__"):
        return  # the package's face
    assert own in ORDER, f"{path} lies in no room"
    wanted = {found for name in imports(path) if (found := room(name)) is not None}
    late = {found for found in wanted if ORDER.index(found) > ORDER.index(own)}
    assert not late, f"{own} imports {late}"
    if own in LIGHTNING_FREE:
        assert not any(name.split(".")[0] in ("lightning", "pytorch_lightning") for name in imports(path))


def test_every_room_has_files():
    rooms = {room(".".join(path.relative_to(REPO).with_suffix("").parts)) for path in FILES}
    assert rooms - {"__init__", "__main__"} == set(ORDER)
