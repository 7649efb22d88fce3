"""The originals of a data set: a folder of files, or an archive, which is unpacked safely first."""

import errno
import hashlib
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath

from torchvision.datasets.folder import is_image_file
from torchvision.datasets.utils import calculate_md5

from jiio_lightning.data.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
UNREADABLE = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, RuntimeError)


class Originals:
    """Named files under one path.

    Args:
        named: a folder or an archive; a folder that holds one archive and nothing else stands for that archive.
        scratch: where an archive is unpacked; whoever made this folder removes it.
        strict: refuse anything but the original: other checksums, another number of files.
    """

    def __init__(self, named: Path, scratch: Path, strict: bool = True) -> None:
        files = list(islice(named.iterdir(), 2)) if named.is_dir() else []
        self.path = files[0] if len(files) == 1 and files[0].name.lower().endswith(ARCHIVES) else named
        self.named, self.scratch, self.strict = named, scratch, strict
        self.digest = hashlib.sha256()

    def inside(self, *places: str) -> "Originals | None":
        """The first of some places in the named folder that exists."""
        there = (self.named / place for place in places if (self.named / place).exists())
        return next((Originals(path, self.scratch, self.strict) for path in there), None)

    @cached_property
    def folder(self) -> Path:
        """Where the files are; an archive is unpacked when they are first asked for."""
        return self.path if self.path.is_dir() else unpack(self.path, self.scratch)

    @cached_property
    def names(self) -> list[str]:
        """Names of all files, sorted, with ``/`` between their parts."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    @property
    def images(self) -> list[str]:
        """Names of the images, without the hidden files that some systems add."""
        return [name for name in self.names if is_image_file(name) and not PurePosixPath(name).name.startswith(".")]

    def read(self, name: str) -> bytes:
        with reading(self.path / name):
            blob = (self.folder / name).read_bytes()
        self.digest.update(f"{name}\0{len(blob)}\0".encode())
        self.digest.update(blob)
        return blob

    def check_md5(self, path: Path, expected: str) -> None:
        """Refuse a file that is not the one whose checksum its authors publish, unless ``strict`` is False."""
        if self.strict and (found := calculate_md5(path)) != expected:
            raise DataError(
                f"{path.name}: MD5 {found} is not the original's {expected}. Get a fresh copy, or say --strict false to"
                " prepare it as it is."
            )

    def origin(self, form: str) -> dict[str, str]:
        """What a manifest says: SHA-256 of the archive, or of the names and contents of the files in the order of reading."""
        checksum = self.digest.hexdigest() if self.path.is_dir() else sha256(self.path)
        return {"form": form, "path": str(self.path.resolve()), "sha256": checksum}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one clear error."""
    try:
        yield
    except UNREADABLE as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}). If it is damaged or cut short, get a fresh copy.") from error


def unpack(archive: Path, scratch: Path) -> Path:
    """A new folder below ``scratch`` with the files of an archive; no link of it is made or followed.

    Raises:
        DataError: when the archive is damaged, or a member's name leaves the folder, which condemns all of it.
    """
    if not archive.name.lower().endswith(ARCHIVES):
        raise DataError(f"{archive} is neither a folder nor an archive ({', '.join(ARCHIVES)}).")
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with reading(archive):
        _unzip(archive, folder) if archive.suffix.lower() == ".zip" else _untar(archive, folder)
    return folder


def _unzip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            _check_name(path, name)
        archive.extractall(folder)  # raises on a wrong CRC


def _untar(path: Path, folder: Path) -> None:
    def files_only(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        _check_name(path, member.name)
        return tarfile.data_filter(member, folder) if member.isreg() else None

    with tarfile.open(path) as archive:
        archive.extractall(folder, filter=files_only)
        if isinstance(archive.fileobj, io.BufferedReader):  # a compressed stream has its own end mark
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its end is missing")


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive} has a member {name!r} that leaves its folder: do not trust this archive.")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
