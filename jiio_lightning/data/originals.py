"""The originals of a data set: the files of a folder, or of an archive, which is unpacked first."""

import gzip
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from torchvision.datasets.folder import is_image_file
from torchvision.datasets.utils import calculate_md5

from jiio_lightning.data.archives import ARCHIVES, GZIP, too_large, unpack
from jiio_lightning.data.errors import DataError, reading
from jiio_lightning.data.found import Found, listing, walk

LARGEST = 1 << 29  # bytes of a file that is read at once


@dataclass(frozen=True)
class Limits:
    """How large originals may become when they are unpacked and decoded: a small file can hold gigabytes of nothing."""

    gigabytes: float = 20.0  # of an archive, or of one compressed file
    megapixels: float = 50.0  # of one image


class Originals:
    """Named files under one path.

    Args:
        named: a folder or an archive; a folder that holds one archive and nothing else stands for that archive.
        scratch: where an archive is unpacked; whoever made this folder removes it.
        strict: refuse anything but the original: other checksums, another number of files.
        limits: how large they may become.
    """

    def __init__(self, named: Path, scratch: Path, strict: bool = True, limits: Limits = Limits()) -> None:
        files = [entry for _, entry in listing(named, Found())] if named.is_dir() else []
        alone = len(files) == 1 and files[0].is_file() and files[0].name.lower().endswith(ARCHIVES)
        self.path = Path(files[0].path) if alone else named
        self.named, self.scratch, self.strict, self.limits = named, scratch, strict, limits
        self.digest = hashlib.sha256()

    def inside(self, *places: str) -> "Originals | None":
        """The first of some places in the named folder that exists."""
        there = (self.named / place for place in places if (self.named / place).exists())
        return next((Originals(path, self.scratch, self.strict, self.limits) for path in there), None)

    @cached_property
    def found(self) -> Found:
        """The files, and what is left out of them; an archive is unpacked when they are first asked for."""
        if self.path.is_dir():
            return walk(self.path)
        return unpack(self.path, self.scratch, self.limits.gigabytes * 1e9)

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted, with ``/`` between their parts; none of what is hidden or a system's."""
        return sorted(self.found.files)

    @cached_property
    def images(self) -> list[str]:
        """Names of the images; what else there is counts as left out, folders without an image too."""
        names = [name for name in self.names if is_image_file(name)]
        for name in self.found.files.keys() - set(names):
            self.leave_out([name], f"{PurePosixPath(name).suffix.lower() or 'other'} files")
        used = {str(folder) for name in names for folder in PurePosixPath(name).parents}
        self.leave_out(self.found.folders - used, "folders without images")
        return names

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Count files that a data set has no use for."""
        self.found.left_out |= dict.fromkeys(names, reason)

    def read(self, name: str) -> bytes:
        with reading(self.path / name):
            path = self.found.files[name]
            if path.stat().st_size > LARGEST:
                raise DataError(f"{self.path / name} has more than {LARGEST / 1e6:,.0f} MB: no image or array is so large.")
            blob = path.read_bytes()
        self.digest.update(os.fsencode(f"{name}\0{len(blob)}\0"))
        self.digest.update(blob)
        return blob

    def read_unzipped(self, name: str) -> bytes:
        """The contents of a file that may be gzipped, which are checked to their end."""
        blob, limit = self.read(name), int(self.limits.gigabytes * 1e9)
        if not blob.startswith(GZIP):  # some browsers unpack what they load and keep its name
            return blob
        with reading(self.path / name), gzip.GzipFile(fileobj=io.BytesIO(blob)) as file:
            contents = file.read(limit + 1)
        if len(contents) > limit:
            raise too_large(self.path / name, limit)
        return contents

    def check_md5(self, path: Path, expected: str) -> None:
        """Refuse a file that is not the one whose checksum its authors publish, unless ``strict`` is False."""
        if self.strict and (found := calculate_md5(path)) != expected:
            raise DataError(
                f"{path.name}: MD5 {found} is not the original's {expected}. Get a fresh copy, or say --strict false to"
                " prepare it as it is."
            )

    def origin(self, form: str) -> dict[str, Any]:
        """What a manifest says: SHA-256 of the archive, or of the names and contents of the files in the order of reading."""
        checksum = self.digest.hexdigest() if self.path.is_dir() else sha256(self.path)
        return {"form": form, "path": str(self.path.resolve()), "sha256": checksum, "left_out": self.found.counts}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
