"""Where a number comes from: the record beside every result."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("pytorch-lightning", "jiio-lightning")


def provenance() -> dict[str, Any]:
    """Command, commit, versions and hardware of this process, as plain data."""
    return {
        "command": command(),
        "commit": commit(),
        "versions": {name: version(name) for name in PACKAGES}
        | {"torch": torch.__version__, "python": platform.python_version()},
        "hardware": hardware(),
    }


def command(words: Sequence[str] | None = None) -> str:
    """What was typed, or what to type: ``jiio ...``, or ``python -m experiments ...`` in a checkout."""
    outside = Path(sys.argv[0]).parent.name == "experiments"
    return f"{'python -m experiments' if outside else 'jiio'} {shlex.join(sys.argv[1:] if words is None else words)}"


def resuming(checkpoint: str) -> str:
    """What to type for this fit to go on from a checkpoint."""
    words, given = [], iter(sys.argv[1:])
    for word in given:
        if word == "--ckpt_path":
            next(given, None)
        elif word != "--overwrite" and not word.startswith("--ckpt_path="):
            words.append(word)
    return command([*words, "--ckpt_path", checkpoint])


def commit() -> str:
    """The commit of the source, with ``+`` if the tree differs from it; "unknown" outside a checkout."""
    root = Path(__file__).parent
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware() -> str:
    """The processor with its threads in use, or the GPU."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    table = Path("/proc/cpuinfo")  # Linux alone has it, and not on every processor a model name
    lines = table.read_text().splitlines() if table.exists() else []
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{processor}, {torch.get_num_threads()} threads"


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()
