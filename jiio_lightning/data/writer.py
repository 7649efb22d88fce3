"""Writing a prepared set: all of it or nothing, by one process at a time."""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from math import prod
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.prepared import Manifest, Prepared, sha256
from jiio_lightning.data.recipe import Contents, Recipe

log = logging.getLogger(__name__)
LIBRARIES = ("numpy", "pillow", "torchvision")


def prepare(recipe: Recipe, source: Path | None, root: Path) -> Prepared:
    """Write the prepared set of ``recipe`` under ``root``, unless it is there already.

    The arrays are written into a hidden folder, which is renamed when the manifest is in it: a set that has its name
    is whole. A second process waits for the first and then finds its work done.

    Raises:
        DataError: when the source is missing, damaged or not what the recipe expects, or the disk is full.
    """
    if (root / recipe.name).exists():
        return Prepared.open(root, recipe)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{recipe.name}.lock"):
            if not (root / recipe.name).exists():
                _write_atomically(recipe, _source(recipe, source, root), root)
    except OSError as error:
        raise DataError(f"{recipe.name} was not prepared, nothing was kept: {error}") from error
    return Prepared.open(root, recipe)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others say that they wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is preparing this set: waiting for it (%s)", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _source(recipe: Recipe, source: Path | None, root: Path) -> Path:
    if not recipe.needs_source:
        return root
    if source is None:
        return recipe.download(root / ".downloads" / recipe.title)
    if not source.exists():
        raise DataError(f"{source} does not exist: --source is to name the originals of {recipe.title}. {recipe.where}")
    return source


def _write_atomically(recipe: Recipe, source: Path, root: Path) -> None:
    with _partial_folder(root / f".{recipe.name}.partial") as folder:
        contents = recipe.read(source)
        _refuse_full_disk(root, contents, recipe)
        checksums = _write_arrays(folder, contents, recipe)
        _manifest(recipe, contents, checksums).save(folder)
        for path in (*folder.iterdir(), folder):
            _flush(path)
        os.rename(folder, root / recipe.name)
        _flush(root)


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """A folder that never outlives a failure; what a killed process left behind goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_arrays(folder: Path, contents: Contents, recipe: Recipe) -> dict[str, str]:
    _write_images(folder / "images.npy", contents, recipe)
    np.save(folder / "labels.npy", contents.labels.astype(np.int64), allow_pickle=False)
    return {name: sha256(folder / name) for name in ("images.npy", "labels.npy")}


def _write_images(path: Path, contents: Contents, recipe: Recipe) -> None:
    """Place every image in one array file.

    Plain writes rather than a memory map: on a full disk they raise, where a mapped page kills the process.
    """
    count, size = len(contents.labels), prod(recipe.shape)
    written = np.zeros(count, dtype=int)
    with path.open("wb") as file, tqdm(total=count, desc=recipe.name, unit=" images", disable=None) as bar:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *recipe.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for positions, images in contents.images:
            for position, image in zip(positions, images, strict=True):
                file.seek(start + int(position) * size)
                file.write(np.ascontiguousarray(image, dtype=np.uint8).reshape(recipe.shape).data)
            written[positions] += 1
            bar.update(len(positions))
    if not (written == 1).all():
        raise DataError(f"{recipe.name}: {(written == 0).sum()} images are missing and {(written > 1).sum()} came twice.")


def _refuse_full_disk(root: Path, contents: Contents, recipe: Recipe) -> None:
    needed, free = len(contents.labels) * (prod(recipe.shape) + 8), shutil.disk_usage(root).free
    if needed > free:
        message = f"needs {needed / 1e6:,.0f} MB in {root}, {free / 1e6:,.0f} MB are free; choose another --root"
        raise OSError(errno.ENOSPC, message)


def _manifest(recipe: Recipe, contents: Contents, checksums: dict[str, str]) -> Manifest:
    return Manifest(
        name=recipe.name,
        recipe=recipe.identity(),
        strict=recipe.strict,
        source=contents.source(),
        shape=recipe.shape,
        levels=contents.levels,
        splits=contents.splits,
        checksums=checksums,
        notes=contents.notes,
        versions={"python": sys.version.split()[0], **{name: version(name) for name in LIBRARIES}},
    )


def _flush(path: Path) -> None:
    """Have the disk hold what was written before the rename says that it does."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
