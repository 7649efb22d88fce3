"""The files of a folder or an archive by their names, and what was left out of them."""

import os
from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path, PurePosixPath

from jiio_lightning.data.errors import DataError, reading

SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
"""What systems put beside a user's files, in lower case. Some of it are copies of images."""


@dataclass
class Found:
    """Files by their names, with ``/`` between the parts."""

    files: dict[str, Path] = field(default_factory=dict)  # where the contents of each file are
    folders: set[str] = field(default_factory=set)  # names of all folders, those without files too
    left_out: dict[str, str] = field(default_factory=dict)  # why, for each file or folder that is not used

    def takes(self, name: str, prefix: str = "") -> bool:
        """Whether a file or folder is a user's own; what is hidden or the system's is counted once, with all below it.

        The prefix is what stands before the name, whatever that is called.
        """
        parts = PurePosixPath(name).parts
        for place, part in enumerate(parts):
            if part.startswith(".") or part.lower() in SYSTEM:
                self.left_out[prefix + "/".join(parts[: place + 1])] = "hidden" if part.startswith(".") else "of the system"
                return False
        return True

    def add(self, name: str, path: Path) -> None:
        self.files[name] = path
        self.folders |= set(map(str, PurePosixPath(name).parents)) - {"."}

    @property
    def counts(self) -> dict[str, int]:
        """How many were left out, by the reason."""
        return dict(sorted(Counter(self.left_out.values()).items()))


def in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items()) or "nothing"


def listing(folder: Path, found: Found, prefix: str = "") -> list[tuple[str, os.DirEntry[str]]]:
    """The files and folders right in a folder that are a user's own, with their names, sorted.

    Links are followed: an entry says what it leads to.

    Raises:
        DataError: for a folder that cannot be read, or a link that leads nowhere.
    """
    with reading(folder), os.scandir(folder) as entries:
        own = sorted(
            ((f"{prefix}{entry.name}", entry) for entry in entries if found.takes(entry.name, prefix)), key=itemgetter(0)
        )
    for _, entry in own:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise DataError(f"{entry.path} is a link that leads nowhere: mend or remove it.")
    return own


def walk(folder: Path) -> Found:
    """All files below a folder. Links are followed, but not back to a folder that they lie in.

    Raises:
        DataError: for a folder that cannot be read, or a link that leads nowhere.
    """
    found = Found()
    _walk(folder, "", (os.path.realpath(folder),), found)
    return found


def _walk(folder: Path, prefix: str, above: tuple[str, ...], found: Found) -> None:
    for name, entry in listing(folder, found, prefix):
        if entry.is_file():
            found.add(name, Path(entry.path))
        elif not entry.is_dir():
            found.left_out[name] = "neither a file nor a folder"
        elif (real := os.path.realpath(entry.path)) in above:
            found.left_out[name] = "a link to a folder above it"
        else:
            found.folders.add(name)
            _walk(Path(entry.path), f"{name}/", (*above, real), found)
