"""The folder of a run: one process trains in it at a time, and a run that is in it is not lost by accident."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from pytorch_lightning.trainer.states import TrainerFn

from jiio_lightning.callbacks.metrics_file import METRICS
from jiio_lightning.commands.checkpoint import read_checkpoint
from jiio_lightning.files import clear_parts

CHECKPOINTS, LAST, LOCK = "checkpoints", "last.ckpt", ".lock"
"""In the folder of a run."""
FILES = (METRICS, "samples_val.csv", "samples_test.csv", *(f"{stage.value}_config.yaml" for stage in TrainerFn))
FOLDERS = ("attack", "compare", "images", "learn_start", "predictions", "samples")
"""What else a run and the commands on its weights leave there."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Train in a folder, alone.

    The system holds the lock for the process and for none of its workers: it is free as soon as the process is dead.

    Raises:
        ValueError: if another process trains there.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = path.is_file() and os.fstat(file.fileno()).st_ino == path.stat().st_ino  # else its holder has just removed it
        except OSError:
            alone = False
        if not alone:
            raise ValueError(f"another run is training in {folder}: wait for its end, or give this one another --name")
        try:
            clear_parts(folder / CHECKPOINTS)
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                for place in made:  # for a run that has never begun
                    place.rmdir()


def old_checkpoints(folder: Path) -> list[Path]:
    """What an earlier run has left in a folder."""
    return sorted((folder / CHECKPOINTS).glob("*.ckpt"))


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier run has left in a folder, all but its checkpoints, to ``replaced_1``, ``replaced_2`` ... in it.

    Returns:
        Where it is now, or None if there was nothing of a run.
    """
    left = [path for name in (*FILES, *FOLDERS) if os.path.lexists(path := folder / name)]
    # folders alone may be the user's own
    if not left or not (old_checkpoints(folder) or any(path.name in FILES for path in left)):
        return None
    place = next(place for n in count(1) if not (place := folder / f"replaced_{n}").exists())
    place.mkdir()
    for path in left:
        path.rename(place / path.name)
    return place


def check_free(folder: Path, ckpt_path: str | None, overwrite: bool, max_steps: int) -> None:
    """Refuse a fit that would overwrite a run, or has nothing to do.

    Raises:
        ValueError: if the folder holds the checkpoints of another run than the one that is to go on, or that one is too long.
    """
    checkpoint = None if ckpt_path is None else read_checkpoint(Path(ckpt_path))
    if checkpoint is not None and 0 <= max_steps < checkpoint["global_step"]:
        step = checkpoint["global_step"]
        raise ValueError(f"{ckpt_path} is of step {step} and the run ends at step {max_steps}: raise trainer.max_steps to go on")
    continues = checkpoint is not None and ckpt_path is not None and _is_of(folder, Path(ckpt_path), checkpoint)
    replaces = overwrite and checkpoint is None  # what goes on is of one run, and cannot lie among another's results
    if old_checkpoints(folder) and not continues and not replaces:
        raise ValueError(
            f"{folder} holds a run: go on with it by --ckpt_path {folder / CHECKPOINTS / LAST}, begin beside it by --name NAME, "
            "or replace it by --overwrite without a --ckpt_path"
        )


def _is_of(folder: Path, path: Path, checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint belongs to the run in a folder: it lies there, or says that the run's last one does."""
    kept = [state.get("dirpath") for state in checkpoint.get("callbacks", {}).values() if isinstance(state, dict)]
    own = (folder / CHECKPOINTS).resolve()
    return path.resolve().is_relative_to(folder.resolve()) or any(str(place) == str(own) for place in kept)
