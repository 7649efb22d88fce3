"""Reading a checkpoint, with errors that say which file and what to do, and writing one whole."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from jiio_lightning.callbacks.finite import check_finite
from jiio_lightning.files import whole_file


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a Lightning checkpoint, its tensors mapped from the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, or not a whole one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: train one with `jiio fit`, or name another --ckpt_path")
    try:  # weights_only: the pickle in a file of somebody else's could run any code
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint; it may be cut off or something else: name another") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of Lightning: it has no state_dict")
    return checkpoint


def claim_file(path: Path) -> None:
    """Make sure that a checkpoint can be written.

    Raises:
        ValueError: if there is a folder of that name, or no place for it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): name another file by --out") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} is a folder or in one that cannot be written: name another file by --out")


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all; a ValueError if there is no place for it."""
    try:
        with whole_file(path) as part, part.open("wb") as file:
            torch.save(dict(checkpoint), file)
    except (OSError, RuntimeError) as error:  # torch has a RuntimeError for what the system says
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        raise ValueError(f"{path} was not written ({reason}); what was there before is as it was") from error


class CheckpointFiles(TorchCheckpointIO):
    """How the trainer writes and reads checkpoints, those of all its callbacks."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # a checkpoint callback of the user's own that writes elsewhere
            return super().save_checkpoint(checkpoint, path, storage_options)
        check_finite({"a weight": checkpoint["state_dict"].values()}, checkpoint["global_step"])
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))
