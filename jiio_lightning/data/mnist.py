"""MNIST from its four original IDX files."""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from torchvision import datasets

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.recipe import Contents, Placed, Recipe, Shape
from jiio_lightning.data.sources import Source, check_md5, open_source, provenance, reading

Idx = dict[str, np.ndarray]

# MD5 of the files without gzip: a copy that was compressed again is the same data
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
IDX_BYTES = 0x08  # type code of unsigned bytes


def parse_idx(name: str, blob: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes: two zeros, the type, the number of axes, their big-endian lengths, the data."""
    axes = blob[3] if len(blob) > 3 else 0
    if blob[:3] != bytes([0, 0, IDX_BYTES]) or not 1 <= axes <= 3 or len(blob) < 4 + 4 * axes:
        raise DataError(f"{name} is not an IDX file of bytes: get a fresh copy.")
    shape = np.frombuffer(blob, ">u4", axes, offset=4).astype(int)
    values = np.frombuffer(blob, np.uint8, offset=4 + 4 * axes)
    if values.size != shape.prod():
        raise DataError(f"{name} holds {values.size} bytes where its header says {shape.prod()}: get a fresh copy.")
    return values.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class MNISTRecipe(Recipe):
    """Prepare MNIST: the last 5,000 of the 60,000 training images are for validation, the 10,000 others test."""

    title: ClassVar[str] = "mnist"
    where: ClassVar[str] = "Name a folder with the four original files, such as train-images-idx3-ubyte.gz."

    @property
    def shape(self) -> Shape:
        return 1, 28, 28

    def download(self, folder: Path) -> Path:
        with self.downloading():
            return Path(datasets.MNIST(str(folder), download=True).raw_folder)

    def read(self, source: Path) -> Contents:
        opened = open_source(source)
        idx = {name: self._idx(opened, name) for name in MD5}
        train, test = self._pair(idx, "train"), self._pair(idx, "t10k")
        held_out = min(5000, len(train[1]) // 2)
        return Contents(
            splits={"train": len(train[1]) - held_out, "val": held_out, "test": len(test[1])},
            labels=np.concatenate([train[1], test[1]]),
            images=self._placed(train[0], test[0]),
            source=partial(provenance, opened, "IDX files"),
        )

    def _idx(self, source: Source, name: str) -> np.ndarray:
        path = next((path for path in source.names() if PurePosixPath(path).name in (name, f"{name}.gz")), None)
        if path is None:
            raise DataError(f"{source.path} has no {name}.gz. {self.where}")
        blob = source.get(path)
        if path.endswith(".gz"):
            with reading(source.path / path):
                blob = gzip.decompress(blob)
        values = parse_idx(path, blob)
        if self.strict:
            check_md5(path, hashlib.md5(blob, usedforsecurity=False).hexdigest(), MD5[name])
        return values

    def _pair(self, idx: Idx, part: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = idx[f"{part}-images-idx3-ubyte"], idx[f"{part}-labels-idx1-ubyte"]
        if images.shape[1:] != self.shape[1:] or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"MNIST {part}: images {images.shape} and labels {labels.shape} do not belong together:"
                " 28x28 images and one label for each are needed. Get fresh copies of both files."
            )
        if labels.max() >= MNIST.num_classes:
            raise DataError(f"MNIST {part}: a label is {labels.max()}, they go from 0 to 9. Get a fresh copy.")
        return images, labels

    @staticmethod
    def _placed(*parts: np.ndarray) -> Iterator[Placed]:
        start = 0
        for images in parts:
            yield np.arange(start, start + len(images)), images[:, None]
            start += len(images)


@dataclass(kw_only=True, eq=False)
class MNIST(ImageDataModule):
    """MNIST: 55,000 to train, 5,000 to validate (the last ones of the training file), 10,000 to test.

    Args:
        pad32: surround the 28x28 images with black to 32x32, as networks of four scales need.
    """

    pad32: bool = False

    num_classes: ClassVar[int] = 10

    @property
    def padding(self) -> int:  # type: ignore[override]
        return 2 if self.pad32 else 0

    @property
    def recipe(self) -> MNISTRecipe:
        return MNISTRecipe()
