"""Rows of an array file, mapped into memory and compared with checksums, block by block, when they are first read."""

import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jiio_lightning.data.errors import DataError

BLOCKS = "blocks.npy"  # CRC-32 of each block of images.npy, uint32; sets from before it was written have none
BLOCK = 1 << 18
"""Bytes of a block, rounded down to whole images, of which it has one at least. Part of the format: never change it."""


class MappedRows:
    """Rows ``start .. stop`` of an array file, mapped into memory on first use.

    It pickles as an address, so that a worker process maps the file itself instead of receiving a copy.

    Args:
        path: of the array file.
        start: first row.
        stop: row after the last one.
        blocks: file of the checksums of its blocks, each of which is compared when a row of it is first taken; None: none are.

    Raises:
        DataError: when a row is taken from a damaged block.
    """

    def __init__(self, path: Path, start: int, stop: int, blocks: Path | None = None) -> None:
        self.path, self.start, self.stop, self.blocks = path, start, stop, blocks

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "MappedRows":
        start, stop, _ = part.indices(len(self))
        return MappedRows(self.path, self.start + start, self.start + stop, self.blocks)

    @cached_property
    def tensor(self) -> Tensor:
        """The rows as they are on disk, unchecked."""
        return torch.from_numpy(self._array[self.start : self.stop])

    def take(self, rows: np.ndarray) -> Tensor:
        """Some of the rows, checked."""
        if self._unread is not None:
            self._check(np.unique((rows + self.start) // self._block))
        return self.tensor.index_select(0, torch.from_numpy(rows).to(self.tensor.device))

    def first(self, count: int | None = None) -> Tensor:
        """The first ``count`` rows, or all of them, checked."""
        rows = self.tensor[:count]
        if self._unread is not None and len(rows):
            self._check(np.arange(self.start // self._block, (self.start + len(rows) - 1) // self._block + 1))
        return rows

    def to(self, device: torch.device) -> "MappedRows":
        """Hold the rows on a device from now on."""
        self.tensor = self.first().to(device)
        self._unread = None
        return self

    @cached_property
    def _array(self) -> np.ndarray:
        # "c" maps the pages privately: torch accepts only memory that may be written, and the file stays as it is
        return np.load(self.path, mmap_mode="c", allow_pickle=False)

    @cached_property
    def _block(self) -> int:
        """Rows of a block."""
        return max(1, BLOCK // max(1, self._array[:1].nbytes))

    @cached_property
    def _unread(self) -> np.ndarray | None:
        """Which blocks have not been compared yet; None as soon as there is nothing to compare any more."""
        return None if self.blocks is None else np.ones(-(-len(self._array) // self._block), bool)

    @cached_property
    def _checksums(self) -> np.ndarray:
        return np.load(self.blocks, allow_pickle=False)  # type: ignore[arg-type]

    def _check(self, blocks: np.ndarray) -> None:
        """Compare those of some blocks that have not been read before with their checksums."""
        for block in blocks[self._unread[blocks]]:  # type: ignore[index]
            part = self._array[block * self._block : (block + 1) * self._block]
            if zlib.crc32(part) != self._checksums[block]:
                raise DataError(f"{self.path} is damaged. Remove {self.path.parent} and prepare it again.")
            self._unread[block] = False  # type: ignore[index]
        if not self._unread[self.start // self._block : (self.stop - 1) // self._block + 1].any():  # type: ignore[index]
            self._unread = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("path", "start", "stop", "blocks")}


def block_checksums(path: Path) -> np.ndarray:
    """CRC-32 of each block of an array file, uint32."""
    rows = MappedRows(path, 0, 0)
    images, size = rows._array, rows._block
    return np.array([zlib.crc32(images[start : start + size]) for start in range(0, len(images), size)], np.uint32)
