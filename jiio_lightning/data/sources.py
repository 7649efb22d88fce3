"""Folders, zip and tar archives as one thing: named files that are read once, in the order in which they lie.

Nothing is ever extracted to disk, and no link in an archive is followed.
"""

import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from torchvision.datasets.folder import is_image_file

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.prepared import sha256

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
UNREADABLE = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, NotImplementedError)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one clear error."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}). If it is damaged or cut short, get a fresh copy.") from error


def is_image(name: str) -> bool:
    """Whether a file is an image to read, and not one of the hidden files that some systems add."""
    return is_image_file(name) and not PurePosixPath(name).name.startswith(".")


class Source(ABC):
    """Named files under one path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all files, with ``/`` between their parts."""

    @abstractmethod
    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Name and contents of the files in ``names``, in the source's own order."""

    @abstractmethod
    def checksum(self) -> str:
        """SHA-256 of the archive; of a folder, of the names and contents of what has been read from it."""

    def get(self, name: str) -> bytes:
        """Contents of one file."""
        return next(blob for _, blob in self.read([name]))


class FolderSource(Source):
    """Files in a folder and its subfolders, sorted by name."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.digest = hashlib.sha256()

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(names):
            with reading(self.path / name):
                blob = (self.path / name).read_bytes()
            self.digest.update(f"{name}\0{len(blob)}\0".encode())
            self.digest.update(blob)
            yield name, blob

    def checksum(self) -> str:
        return self.digest.hexdigest()


class ArchiveSource(Source):
    """An archive file; a member whose name leaves the archive's folder condemns all of it."""

    def checksum(self) -> str:
        return sha256(self.path)

    def _checked(self, name: str) -> str:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{self.path} has a member {name!r} that leaves its folder: do not trust this archive.")
        return name


class ZipSource(ArchiveSource):
    def names(self) -> list[str]:
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            return [self._checked(member.filename) for member in archive.infolist() if not member.is_dir()]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                if name in wanted:
                    yield name, archive.read(name)  # raises on a wrong CRC


class TarSource(ArchiveSource):
    def names(self) -> list[str]:
        with reading(self.path), tarfile.open(self.path) as archive:
            return [self._checked(member.name) for member in self._files(archive)]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        with reading(self.path), tarfile.open(self.path) as archive:
            for member in self._files(archive):
                if member.name in wanted:
                    yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]

    @staticmethod
    def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        yield from (member for member in archive if member.isreg())
        if isinstance(archive.fileobj, io.BufferedReader):  # a compressed stream has its own end mark
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its end is missing")


def open_source(path: Path) -> Source:
    """A folder or an archive; a folder that holds one archive and nothing else stands for that archive."""
    if path.is_dir():
        files = list(path.iterdir())
        only = files[0] if len(files) == 1 else None
        return open_source(only) if only is not None and _is_archive(only) else FolderSource(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist: name a folder or an archive ({', '.join(ARCHIVES)}).")
    if not _is_archive(path):
        raise DataError(f"{path} is neither a folder nor an archive ({', '.join(ARCHIVES)}).")
    return ZipSource(path) if path.suffix.lower() == ".zip" else TarSource(path)


def locate(folder: Path, *places: str) -> Path | None:
    """The first of some places under a folder that exists."""
    return next((folder / place for place in places if (folder / place).exists()), None)


def provenance(source: Source, form: str) -> dict[str, str]:
    """What a manifest says about a source; to be asked when everything has been read."""
    return {"form": form, "path": str(source.path.resolve()), "sha256": source.checksum()}


def md5(path: Path) -> str:
    """MD5 of a file, for comparison with the checksum that its authors publish."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def check_md5(what: str | Path, found: str, expected: str) -> None:
    """Refuse bytes that are not the original's."""
    if found != expected:
        raise DataError(
            f"{what}: MD5 {found} is not the original's {expected}. Get a fresh copy, or say --strict false to"
            " prepare it as it is."
        )


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(ARCHIVES)
