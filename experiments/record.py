"""What a run leaves behind, and when it can be used again instead of running once more."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import jiio_lightning
from experiments.plan import Choice, Run, trials
from jiio_lightning.files import write_text

PACKAGE = Path(jiio_lightning.__file__).parent
LABORATORY = Path(__file__).parent


@dataclass(frozen=True)
class Record:
    """One finished run."""

    name: str
    key: str  # hash of its configuration, of its weights' and of the code
    command: str  # what to type in the project's root to get it again
    metrics: dict[str, float]
    seconds: float  # wall-clock time of the command
    peak_memory: int  # bytes; of the process on a CPU, of the tensors on a GPU
    steps: int  # of the optimiser, in a fit
    curve: list[tuple[int, float]]  # step and value of the validation metric of a fit
    data: dict[str, str]  # checksum of the manifest of each prepared set that it read, by folder
    seed: int | None
    budget: str
    provenance: dict[str, Any]  # commit, versions, hardware
    weights: str | None = None  # name of the run whose checkpoint it read
    resumed: bool = False  # a fit that was cut off and went on: its seconds are of the last part alone

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record in a file; None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):  # TypeError: it has the fields of another version
            return None

    @property
    def still_falls(self) -> bool | None:
        """Whether the validation curve fell by over 5 % in the last tenth of the steps; None without a curve."""
        if len(self.curve) < 2:
            return None
        before = [value for step, value in self.curve if step <= 0.9 * self.steps]
        return bool(before) and self.curve[-1][1] < 0.95 * before[-1]


def key(run: Run, root: Path) -> str:
    """Hash of everything that decides a run's metrics but the data: configuration, weights, code."""
    # contents, not paths: an edited fragment makes another run
    overrides = [_config(root / text) if is_fragment(text, root) else text for text in run.overrides]
    parts: list[object] = [run.command, _config(root / run.config), overrides, code_version(run.command)]
    parts += [key(trial, root) for trial in trials(run.weights)]
    parts += [run.weights.metric if isinstance(run.weights, Choice) else ""]
    parts += [(file.place, file.path, key(file.run, root)) for file in run.files]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def code_version(command: str) -> str:
    """Hash of the sources that decide the metrics of a command."""
    digest = hashlib.sha256()
    for path in sources(command):
        digest.update(f"{path.parent.name}/{path.name}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def sources(command: str) -> list[Path]:
    """The files that decide the metrics of a command: the package and the baselines."""
    # a fit of an hour is not done again because a report or another command has changed: Lightning's own know none of those
    inside = [path for path in sorted(PACKAGE.rglob("*.py")) if command not in ("fit", "test") or path.parent.name != "commands"]
    return [*inside, *sorted((LABORATORY / "baselines").rglob("*.py")), LABORATORY / "benchmarks" / "step_seconds.py"]


def _config(path: Path) -> object:
    """A run file's contents with its fragments in their places."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: a run file's path is relative to the project's root")
    return _expanded(yaml.safe_load(path.read_text()), path.parent)


def _expanded(value: object, folder: Path) -> object:
    if isinstance(value, dict):
        return {name: _expanded(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, folder) for part in value]
    return _config(folder / value) if isinstance(value, str) and is_fragment(value, folder) else value


def is_fragment(text: str, folder: Path) -> bool:
    """Whether a text is the path of a YAML file below a folder."""
    return text.endswith(".yaml") and (folder / text).is_file()
