"""Results are written whole or not at all: beside their place, on the disk, then renamed. The old one stays until then. Tensors
are read as tensors: their checksums first, and nothing in a file is ever run."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part-"
"""How the names of files that are being written begin; one that a killed process has left can go."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that is to have the name ``path`` once it is whole; its folder is made if missing.

    An exception in the block, a full disk or a kill leaves what was there before.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "result.txt") as part:
        ...         _ = part.write_text("all of it")
        ...     [path.name for path in Path(folder).iterdir()]
        ['result.txt']
    """
    path = path.resolve()  # the file that a link names, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside it: a rename to another file system is a copy, which can be cut off. With its suffix: some writers go by it
    part = path.with_name(f"{PART}{os.getpid()}.{path.name}")
    try:
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, keep: bool = False) -> Iterator[Path]:
    """As :func:`whole_file` for a folder, of which the old one goes.

    Args:
        folder: its name.
        keep: whether what the old one holds under other names stays.
    """
    folder = folder.resolve()
    part, old = (folder.with_name(f"{PART}{os.getpid()}.{which}.{folder.name}") for which in ("new", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if keep and folder.is_dir():
            new = {path.name for path in part.iterdir()}
            shutil.copytree(folder, part, ignore=lambda *_: new, symlinks=True, dirs_exist_ok=True)
        if folder.is_dir():
            folder.rename(old)  # no system renames a folder onto one that is not empty
        part.rename(folder)
    finally:
        if old.is_dir() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)


def clear_parts(folder: Path) -> None:
    """Remove what processes that were killed have left half-written in a folder that nobody else writes to."""
    for path in folder.glob(f"{PART}*"):
        path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text)


def check_place(folder: Path) -> None:
    """Refuse, by a ValueError, a folder in which nothing could be written: now, not after the work."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"nothing can be written in {folder}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise ValueError(f"nothing can be written in {folder}: there is no permission to write in {there}")


def flush(path: Path) -> None:
    """Have the disk hold a file or a folder before a rename says that it does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_tensors(path: Path, kind: str) -> Any:
    """What ``torch.save`` wrote, its tensors mapped from the file.

    Args:
        path: the file.
        kind: what it should be, for the message: "a checkpoint".

    Raises:
        ValueError: if it is damaged, cut off or something else, or holds more than tensors and plain data.
    """
    import torch  # here: commands that read no tensors start without it

    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, which torch never does, and could be of any size")
            # torch maps the file, and would not see a flipped bit
            if archive.testzip() is not None:
                raise ValueError("it is damaged, its checksums differ")
        # weights_only: the pickle in a file of somebody else's could run any code
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # any: what a damaged file does is not known
        raise ValueError(f"{path} cannot be read as {kind}: {_reason(error)}; name another") from error


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return "it holds more than tensors and plain data, which could run code and is never loaded"
    return str(error) if type(error) is ValueError else "it is cut off, damaged or something else"
