"""Archives, unpacked safely: whatever a member is called, it never becomes the name of a file on disk."""

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from jiio_lightning.data.errors import DataError, reading
from jiio_lightning.data.found import Found

ZIPS = (".zip", ".npz")
ARCHIVES = (*ZIPS, ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
GZIP = b"\x1f\x8b"
OPENERS: dict[bytes, Callable[..., Any]] = {GZIP: gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}
HEADER = 1 << 24  # bytes: no name or comment of a member needs more
CHUNK = 1 << 20
PATH = 4096  # bytes of what a link names
LINKS = 8  # in a row, until a file is reached
UNIX, UTF8, ENCRYPTED, FOLDER = 3, 0x800, 0x1, 0x10  # of a zip: a system, two flags of a member, a bit of its attributes
UNICODE_PATH = 0x7075  # an extra field of a zip's member: its name in UTF-8


@dataclass(frozen=True)
class Member:
    """A member of an archive: a file with contents, a link, or else a folder."""

    name: str
    contents: Callable[[], IO[bytes]] | None = None
    link: str | None = None  # the name that it stands for; empty: none in this archive


def unpack(archive: Path, scratch: Path, limit: float) -> Found:
    """The files of an archive, each in a numbered file of a new folder below ``scratch``.

    A member that comes twice is the last one, as when it is unpacked by hand; links are followed within the archive only.

    Args:
        archive: its path; the suffix says whether it is a zip or a tar.
        scratch: whoever made this folder removes it.
        limit: bytes that it may unpack to.

    Raises:
        DataError: when the archive is damaged, encrypted or larger than the limit, or a member's name leaves the folder, which
            condemns all of it.
    """
    if not archive.name.lower().endswith(ARCHIVES):
        raise DataError(f"{archive} is neither a folder nor an archive ({', '.join(ARCHIVES)}).")
    members = _zip_members if archive.suffix.lower() in ZIPS else _tar_members
    with reading(archive):
        try:
            return _unpacked(archive, members(archive, limit), Path(tempfile.mkdtemp(dir=scratch)))
        except NotImplementedError as error:
            raise DataError(f"{archive} is packed in an unknown way ({error}): unpack it and name the folder.") from error


def _unpacked(archive: Path, members: Iterator[Member], folder: Path) -> Found:
    """The members that are a user's own, with their contents in the folder."""
    found, links = Found(), dict[str, str]()
    for number, member in enumerate(members):
        name = _checked(archive, member.name)
        if name == "." or not found.takes(name):
            continue
        if (found.files.pop(name, None) or links.pop(name, None)) is not None:
            found.left_out[f"{name}, {number}"] = "replaced by a later member"
        if member.link is not None:
            links[name] = member.link
        elif member.contents is None:
            found.folders.add(name)
        else:
            with member.contents() as contents, (folder / str(number)).open("wb") as file:
                shutil.copyfileobj(contents, file, CHUNK)
            found.add(name, folder / str(number))
    return _follow(archive, links, found)


def _checked(archive: Path, name: str) -> str:
    """The name without ``.`` and empty parts."""
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or PureWindowsPath(name).is_absolute() or ".." in slashed.split("/"):
        raise DataError(f"{archive} has a member {name!r} that leaves its folder: do not trust this archive.")
    return posixpath.normpath(name)


def _follow(archive: Path, links: dict[str, str], found: Found) -> Found:
    """Give links the contents of the files that they lead to."""
    real = dict(found.files)
    for name in links:
        target = name
        for _ in range(LINKS):
            target = links.get(target, target)
        if target in real:
            found.add(name, real[target])
        elif target in found.folders:
            raise DataError(f"{archive} has a link to a folder ({name}): unpack it and name the folder with its files instead.")
        else:
            found.left_out[name] = "links to no file of the archive"
    return found


def too_large(archive: Path, limit: float) -> DataError:
    return DataError(
        f"{archive} unpacks to more than {limit / 1e9:g} GB. If it is not damaged, allow more with --max_gb of"
        " 'jiio data prepare'."
    )


def _zip_members(path: Path, limit: float) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > limit:  # no member yields more than it says
            raise too_large(path, limit)
        if any(member.flag_bits & ENCRYPTED for member in members):
            raise DataError(f"{path} has encrypted members: unpack it with its password and name the folder.")
        for member in members:
            yield _zip_member(archive, member)


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Member:
    name = _zip_name(member)
    if name.endswith("/") or (member.create_system != UNIX and member.external_attr & FOLDER):
        return Member(name)
    if member.create_system == UNIX and stat.S_ISLNK(member.external_attr >> 16):
        with archive.open(member) as contents:
            return Member(name, link=_inside(posixpath.dirname(name), os.fsdecode(contents.read(PATH))))
    return Member(name, lambda: archive.open(member))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Its name, also where the tool that wrote it does not say that it is UTF-8, or has ``\\`` between the parts."""
    name = member.orig_filename.partition("\0")[0]
    if not member.flag_bits & UTF8:
        raw = _extra(member.extra, UNICODE_PATH)[5:] or name.encode("cp437")  # after a version and a checksum
        with suppress(UnicodeDecodeError):  # DOS and Windows
            name = raw.decode()  # macOS
    return _slashed(name, member.create_system == UNIX)


def _slashed(name: str, unix: bool) -> str:
    return name if unix and "/" in name else name.replace("\\", "/")


def _extra(fields: bytes, wanted: int) -> bytes:
    """One of the extra fields of a zip's member, empty if it is not there."""
    while len(fields) >= 4:
        number, size = struct.unpack_from("<HH", fields)
        if number == wanted:
            return fields[4 : 4 + size]
        fields = fields[4 + size :]
    return b""


def _inside(folder: str, target: str) -> str:
    """Where a link in a folder of an archive leads, empty if that is out of the archive."""
    path = posixpath.normpath(posixpath.join(folder, target))
    return "" if path.startswith(("/", "../")) or path == ".." else path


class _Stream:
    """What a tar is read from, which remembers the last block that was read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.last = stream, b""
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int) -> bytes:
        if size > HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.stream.read(size)
        return self.last


def _tar_members(path: Path, limit: float) -> Iterator[Member]:
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        opener = next((opener for start, opener in OPENERS.items() if magic.startswith(start)), None)
        stream = _Stream(raw if opener is None else opener(raw))
        size = 0
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                size += member.size  # of a sparse file more than what is stored
                if max(archive.offset, size) > limit:
                    raise too_large(path, limit)
                yield _tar_member(archive, member)
        # a compressed stream has its own end mark; what stands in its place is a damaged header
        if stream.last not in (bytes(tarfile.BLOCKSIZE), *((b"",) if opener else ())):
            raise tarfile.ReadError("its end is missing")
        while stream.read(CHUNK):  # the checksum of a compressed stream is at its end
            if stream.tell() > limit:
                raise too_large(path, limit)


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Member:
    name = _slashed(member.name, unix=True)
    if member.islnk():
        return Member(name, link=_inside("", member.linkname))
    if member.issym():
        return Member(name, link=_inside(posixpath.dirname(name), member.linkname))
    if member.isreg():
        return Member(name, lambda: archive.extractfile(member))  # type: ignore[arg-type, return-value]
    return Member(name) if member.isdir() else Member(name, link="")  # devices
