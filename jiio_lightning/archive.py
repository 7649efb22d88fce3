"""Reading a file of tensors: its checksums first, and nothing in it is ever run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_archive(path: Path, kind: str) -> Any:
    """What ``torch.save`` wrote, its tensors mapped from the file.

    Args:
        path: the file.
        kind: what it should be, for the message: "a checkpoint".

    Raises:
        ValueError: if it is damaged, cut off or something else, or holds more than tensors and plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # stored members only: a compressed one, which torch never writes, could be of any size
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            # torch maps the file, and would not see a flipped bit
            damaged = archive.testzip() if stored else None
        if damaged is not None or not stored:
            raise ValueError("it is damaged: its checksums differ")
        # weights_only: the pickle in a file of somebody else's could run any code
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # any: what a damaged file does is not known
        raise ValueError(f"{path} cannot be read as {kind}: {_reason(error)}; name another") from error


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return "it holds more than tensors and plain data, which could run code and is never loaded"
    return str(error) if type(error) is ValueError else "it is cut off, damaged or something else"
