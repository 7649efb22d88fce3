"""A prepared set: memory-mapped arrays beside a manifest that says what they are and where they came from."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.recipe import Recipe, Shape

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a prepared set is. Written last: a folder without one is not a prepared set.

    The file also holds the checksum of its own contents.
    """

    name: str
    recipe: dict[str, Any]  # set, version and options: what was done
    strict: bool  # whether the source was the original
    source: dict[str, Any]  # to what it was done: path, checksum, form
    shape: Shape  # of one image
    levels: int  # value of a full pixel
    splits: dict[str, int]  # number of samples, in the order in which they are stored
    checksums: dict[str, str]  # SHA-256 of each array file
    notes: dict[str, Any]  # what else the recipe has to say, such as the names of classes
    versions: dict[str, str]  # of the libraries that decoded and resized

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read the manifest of a prepared set."""
        try:
            fields = json.loads((folder / MANIFEST).read_text())
            checksum = fields.pop("checksum")
            manifest = cls(**{**fields, "shape": tuple(fields["shape"])})
            if checksum != manifest.checksum:
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{folder} is not a prepared set: {MANIFEST} cannot be used ({error!r}). Remove the folder and prepare it again."
            ) from error
        return manifest

    def save(self, folder: Path) -> None:
        fields = {**asdict(self), "checksum": self.checksum}
        (folder / MANIFEST).write_text(json.dumps(fields, indent=1) + "\n")

    @property
    def checksum(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def bounds(self, split: str) -> tuple[int, int]:
        """Rows of a split: start and stop."""
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}.")
        names = list(self.splits)
        start = sum(self.splits[name] for name in names[: names.index(split)])
        return start, start + self.splits[split]


class MappedRows:
    """Rows ``start .. stop`` of an array file, mapped into memory on first use.

    It pickles as an address, so that a worker process maps the file itself instead of receiving a copy.
    """

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path, self.start, self.stop = path, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "MappedRows":
        start, stop, _ = part.indices(len(self))
        return MappedRows(self.path, self.start + start, self.start + stop)

    @cached_property
    def tensor(self) -> Tensor:
        # "c" maps the pages privately: torch accepts only memory that may be written, and the file stays as it is
        rows = np.load(self.path, mmap_mode="c", allow_pickle=False)[self.start : self.stop]
        return torch.from_numpy(rows)

    def to(self, device: torch.device) -> "MappedRows":
        """Keep the rows on a device from now on."""
        self.tensor = self.tensor.to(device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tensor"}


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

    def rows(self, array: str, split: str) -> MappedRows:
        """The rows of a split of ``images`` or ``labels``."""
        return MappedRows(self.folder / f"{array}.npy", *self.manifest.bounds(split))

    def verify(self) -> None:
        """Compare every byte with the manifest's checksums; DataError names the files that differ."""
        damaged = [path for path in self.arrays if not path.is_file() or sha256(path) != self.manifest.checksums[path.name]]
        if damaged:
            names = ", ".join(map(str, damaged))
            raise DataError(f"damaged: {names}. Remove {self.folder} and prepare it again.")

    def _check(self, recipe: Recipe) -> None:
        """What can be checked without reading the pixels."""
        written, wanted = self.manifest.recipe, recipe.identity()
        if written != json.loads(json.dumps(wanted)):
            raise DataError(
                f"{self.folder} was prepared by {written}, this run asks for {wanted}."
                " Remove the folder and prepare it again, or use another root."
            )
        for path in self.arrays:
            try:
                np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{path} is damaged ({error}). Remove {self.folder} and prepare it again.") from error
