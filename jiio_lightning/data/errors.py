"""The one exception that bad data raise, and how a file's own errors become it."""

import errno
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    RuntimeError,
)
UNREADABLE_ARRAY = (OSError, EOFError, KeyError, TypeError, ValueError, MemoryError, TokenError)
"""What np.load raises."""


class DataError(Exception):
    """Data that cannot be used: the message says which, why, and what to do about it."""

    def __str__(self) -> str:
        # the worker of a loader hands over its traceback as the message, which ends with what was said
        return super().__str__().rpartition(f"{__name__}.{type(self).__name__}: ")[2].rstrip()


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


def printable(name: str) -> str:
    """A name as text that every file and screen can show: a byte of it that is not UTF-8 becomes ``\\xNN``.

    >>> printable("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
