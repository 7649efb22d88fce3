"""Reading a checkpoint, with errors that say which file and what to do, and writing one whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from jiio_lightning.callbacks.finite import check_finite
from jiio_lightning.files import read_tensors, whole_file

VERSION = "pytorch-lightning_version"


UNTRAINED = "none"
"""The --ckpt_path of a command that evaluates a fresh net on purpose."""
LAST = "last.ckpt"


def find_checkpoint(given: str | None, own: Path, resumes: bool) -> Path | None:
    """The checkpoint that a command reads: a file, or one of the run's own by a word.

    Args:
        given: ``--ckpt_path``: a local path, ``last``, ``best`` (by the metric that a checkpoint callback monitors) or ``none``.
        own: the folder of the run's own checkpoints.
        resumes: whether the command is ``fit``, which begins anew unless told otherwise; others take the run's own last one.

    Returns:
        None for a fresh net.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is an address, or the run has no checkpoint and none is named.
    """
    if given == UNTRAINED or (given is None and resumes):
        return None
    if given is not None and "://" in given:
        raise ValueError(f"--ckpt_path {given} is an address: checkpoints are read from local files only, fetch it first")
    if given is None:
        if not (own / LAST).is_file():
            raise ValueError(
                f"there are no weights: {own / LAST} is not there. Train by `jiio fit`, name a --ckpt_path, or take untrained "
                f"weights by --ckpt_path {UNTRAINED}"
            )
        rank_zero_info(f"weights: {own / LAST}, the run's own (--ckpt_path names others)")
    if given == "best":
        return _best(read_checkpoint(own / LAST), own)
    return own / LAST if given in (None, "last") else Path(given)


def _best(last: Mapping[str, Any], own: Path) -> Path:
    """What a checkpoint callback of the run that monitors a metric has kept."""
    kept = [state for state in last.get("callbacks", {}).values() if isinstance(state, dict) and state.get("monitor")]
    names = [Path(str(state["best_model_path"])).name for state in kept if state.get("best_model_path")]
    if not names:
        raise ValueError(f"the run in {own} kept no best checkpoint, none of its callbacks monitors a metric: take last")
    return own / names[0]


def read_checkpoint(path: str | Path, resumes: bool = False) -> dict[str, Any]:
    """The contents of a Lightning checkpoint, its tensors mapped from the file. All commands read theirs here.

    Args:
        path: a local file.
        resumes: whether it has to hold the state of a training run, not weights alone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, not a whole one, or has weights that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: --ckpt_path names a file, such as checkpoints/{LAST} in a run's folder")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: train one with `jiio fit`, or name another --ckpt_path")
    checkpoint = read_tensors(path, "a checkpoint")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of Lightning: it has no state_dict")
    _check_weights(path, checkpoint["state_dict"])
    if resumes and not _resumable(checkpoint):
        raise ValueError(
            f"{path} holds weights but no state of a training run that could go on: name a checkpoint that `jiio fit` wrote"
        )
    return checkpoint


def _resumable(checkpoint: Mapping[str, Any]) -> bool:
    match checkpoint:
        case {
            "pytorch-lightning_version": str(version),
            "epoch": int(),
            "global_step": int(),
            "loops": {"fit_loop": dict()},
            "callbacks": dict(callbacks),
            "optimizer_states": [{"state": dict(), "param_groups": [dict(), *_]}, *_],
            "lr_schedulers": list(schedules),
        }:
            return version.startswith("2.") and all(isinstance(state, dict) for state in (*callbacks.values(), *schedules))
    return False


def _is_weight(name: Any, tensor: Any) -> bool:
    dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    return isinstance(name, str) and dense and not (tensor.is_complex() or tensor.is_quantized)


def _check_weights(path: Path, weights: Any) -> None:
    if not isinstance(weights, dict) or not all(map(_is_weight, weights, weights.values())):
        raise ValueError(f"{path} is not a checkpoint of Lightning: its state_dict is not a mapping of names to real tensors")
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ValueError(
            f"{path} has weights that are not finite: {len(bad)} of {len(weights)} tensors, such as {bad[0]}. Its training "
            "diverged: take an earlier checkpoint, or train again with a lower learning rate"
        )


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
    """How the trainer writes and reads checkpoints, those of all its callbacks.

    Args:
        resumes: whether it goes on with a training run; else it takes the weights alone.
    """

    def __init__(self, resumes: bool = True) -> None:
        self.resumes = resumes

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # a checkpoint callback of the user's own that writes elsewhere
            return super().save_checkpoint(checkpoint, path, storage_options)
        check_finite({"a weight": checkpoint["state_dict"].values()}, checkpoint["global_step"])
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint = read_checkpoint(path, self.resumes)
        # Lightning looks into the state of the training, and at its own version, even where it only needs the weights
        return checkpoint if self.resumes else {"state_dict": checkpoint["state_dict"], VERSION: pl.__version__}
