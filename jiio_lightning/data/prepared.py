"""A prepared set: memory-mapped arrays and a manifest, written whole or not at all, by one process at a time."""

import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from jiio_lightning.data.catalogue import MANIFEST, Manifest
from jiio_lightning.data.errors import UNREADABLE_ARRAY, DataError
from jiio_lightning.data.originals import Limits, Originals, sha256
from jiio_lightning.data.recipe import Contents, Recipe
from jiio_lightning.data.rows import BLOCKS, MappedRows, block_checksums
from jiio_lightning.files import flush

log = logging.getLogger(__name__)
LIBRARIES = ("numpy", "pillow", "torchvision")


@dataclass(frozen=True)
class Prepared:
    """A prepared set on disk."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: Path, recipe: Recipe) -> "Prepared":
        """Open what ``recipe`` has prepared under ``root``; DataError says how to prepare it."""
        folder = root / recipe.name
        if not folder.is_dir():
            raise DataError(
                f"{recipe.name} is not prepared in {root.resolve()}. Run: {recipe.command} --root {root}"
                " (or give the data module a source, or set root or JIIO_DATA to where it is)."
            )
        prepared = cls(folder, Manifest.load(folder))
        prepared._check(recipe)
        return prepared

    @property
    def arrays(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.manifest.checksums)

    def rows(self, array: str, split: str | None = None) -> MappedRows:
        """The rows of a split, or of all splits, of ``images`` or ``labels``."""
        bounds = (0, sum(self.manifest.splits.values())) if split is None else self.manifest.bounds(split)
        blocks = self.folder / BLOCKS if array == "images" and BLOCKS in self.manifest.checksums else None
        return MappedRows(self.folder / f"{array}.npy", *bounds, blocks)

    def verify(self) -> None:
        """Compare every byte with the manifest's checksums; DataError names the files that differ."""
        damaged = [path for path in self.arrays if not path.is_file() or sha256(path) != self.manifest.checksums[path.name]]
        if damaged:
            names = ", ".join(map(str, damaged))
            raise DataError(f"damaged: {names}. Remove {self.folder} and prepare it again.")

    def check_source(self, source: Path | None) -> None:
        """Refuse a source from which the set was not made, though it may have gone since."""
        if source is None:
            return
        named, path = self.manifest.source.get("named", ""), self.manifest.source.get("path", "")
        made_of = (
            {named, path} if named != "" else {path, *map(str, Path(path).parents)}
        )  # sets of before do not say what was named
        if str(source.resolve()) not in made_of:
            raise DataError(
                f"{self.folder} was prepared from {named or path}, not from {source}. To use it as it is, give no source; to"
                " prepare another, remove that folder or use another root (for images of your own: another name)."
            )

    def _check(self, recipe: Recipe) -> None:
        """What can be checked without reading the pixels."""
        written, wanted = self.manifest.recipe, recipe.identity()
        if written != json.loads(json.dumps(wanted)):  # JSON has lists for tuples
            raise DataError(
                f"{self.folder} was prepared by {written}, this run asks for {wanted}."
                " Remove the folder and prepare it again, or use another root."
            )
        for path in self.arrays:
            try:
                np.load(path, mmap_mode="r", allow_pickle=False)
                if path.name != "images.npy" and sha256(path) != self.manifest.checksums[path.name]:
                    raise ValueError("its checksum is wrong")
            except UNREADABLE_ARRAY as error:
                raise DataError(f"{path} is damaged ({error}). Remove {self.folder} and prepare it again.") from error


def prepare(recipe: Recipe, source: Path | None, root: Path, strict: bool = True, limits: Limits | None = None) -> Prepared:
    """Write the prepared set of ``recipe`` under ``root``, unless it is there already.

    The arrays are written into a hidden folder, which is renamed when the manifest is in it: a set that has its name is whole. A
    second process waits for the first and then finds its work done.

    Args:
        source: the originals; None: they are downloaded, or none are needed.
        strict: refuse anything but the original: other checksums, another number of images.
        limits: what the originals may unpack to; by default the recipe's.

    Raises:
        DataError: when the source is missing, damaged or not what the recipe expects, when the set that is there was made from
            another one, or when the disk is full.
    """
    folder = root / recipe.name
    if source is not None and not recipe.where:
        raise DataError(f"{recipe.title} needs no source: leave {source} out.")
    if not folder.exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root / f".{recipe.name}.lock"), _partial_folder(root / f".{recipe.name}.partial") as partial:
                if not folder.exists():
                    originals = Originals(_source(recipe, source, root), partial, strict, limits or recipe.limits)
                    _write(recipe, originals, None if source is None else str(source.resolve()), partial / "set")
                    os.rename(partial / "set", folder)
                    flush(root)
        except OSError as error:
            raise DataError(f"{recipe.name} was not prepared, nothing was kept: {error}") from error
    prepared = Prepared.open(root, recipe)
    prepared.check_source(source)
    return prepared


def _locked(path: Path) -> AbstractContextManager[Any]:
    """One process at a time; the others say that they wait."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is preparing this set: waiting for it (%s)", path)
        return lock.acquire()


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """A folder that never outlives a failure; what a killed process left behind goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _source(recipe: Recipe, source: Path | None, root: Path) -> Path:
    if not recipe.where:
        return root
    if source is None:
        try:
            return recipe.download(root / ".downloads" / recipe.title)
        except DataError:
            raise
        except Exception as error:  # every one of the libraries below torchvision has exceptions of its own
            reason = " ".join(str(error).split())
            raise DataError(
                f"{recipe.title} could not be downloaded ({reason}). {recipe.where} Then: {recipe.command}"
            ) from error
    if not source.exists():
        raise DataError(f"{source} does not exist: --source is to name the originals of {recipe.title}. {recipe.where}")
    return source


def _write(recipe: Recipe, originals: Originals, named: str | None, folder: Path) -> None:
    contents = recipe.read(originals)
    needed, free = len(contents.labels) * (prod(recipe.shape) + 8), shutil.disk_usage(folder.parent).free
    if needed > free:  # now, not after minutes of decoding
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; choose another --root")
    folder.mkdir()
    _write_images(folder / "images.npy", contents, recipe)
    np.save(folder / "labels.npy", contents.labels.astype(np.int64), allow_pickle=False)
    np.save(folder / BLOCKS, block_checksums(folder / "images.npy"), allow_pickle=False)
    manifest = Manifest(
        name=recipe.name,
        recipe=recipe.identity(),
        strict=originals.strict,
        source={**contents.origin(), "named": named},
        shape=recipe.shape,
        levels=contents.levels,
        splits=contents.splits,
        checksums={name: sha256(folder / name) for name in ("images.npy", "labels.npy", BLOCKS)},
        notes=contents.notes,
        versions={"python": sys.version.split()[0], **{name: version(name) for name in LIBRARIES}},
    )
    (folder / MANIFEST).write_text(json.dumps({**asdict(manifest), "checksum": manifest.checksum}, indent=1) + "\n")
    for path in (*folder.iterdir(), folder):
        flush(path)


def _write_images(path: Path, contents: Contents, recipe: Recipe) -> None:
    """Put the images into one array file.

    Plain writes rather than a memory map: on a full disk they raise, where a mapped page kills the process.
    """
    count = len(contents.labels)
    with path.open("wb") as file, tqdm(total=count, desc=recipe.name, unit=" images", disable=None) as bar:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *recipe.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for images in contents.images:
            chunk = np.ascontiguousarray(images, dtype=np.uint8).reshape(-1, *recipe.shape)
            file.write(chunk.data)
            bar.update(len(chunk))
            count -= len(chunk)
    if count:
        raise DataError(f"{recipe.name}: {abs(count)} images {'are missing' if count > 0 else 'are too many'}.")
