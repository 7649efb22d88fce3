"""MNIST from its four original IDX files."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.recipe import Contents

# MD5 of the files without gzip: a copy that was compressed again is the same data
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(kw_only=True, eq=False)
class MNIST(ImageDataModule):
    """MNIST: 55,000 to train, 5,000 to validate (the last ones of the training file), 10,000 to test.

    Args:
        pad32: surround the 28x28 images with black to 32x32, as networks of four scales need.
    """

    pad32: bool = False

    num_classes: ClassVar[int] = 10
    title, shape = "mnist", (1, 28, 28)
    where = WHERE[title]
    limits = Limits(gigabytes=0.06)  # 47 MB are the largest file, 55 MB all four

    @property
    def padding(self) -> int:  # type: ignore[override]
        return 2 if self.pad32 else 0

    def download(self, folder: Path) -> Path:
        return Path(datasets.MNIST(str(folder), download=True).raw_folder)

    def read(self, originals: Originals) -> Contents:
        train, test = self._pair(originals, "train"), self._pair(originals, "t10k")
        # of a part of the set (--strict false) half at most
        held_out = min(5000, len(train[1]) // 2)
        return Contents(
            splits={"train": len(train[1]) - held_out, "val": held_out, "test": len(test[1])},
            labels=np.concatenate([train[1], test[1]]),
            images=[train[0], test[0]],
            origin=partial(originals.origin, "IDX files"),
        )

    def _pair(self, originals: Originals, part: str) -> tuple[np.ndarray, np.ndarray]:
        images = self._array(originals, f"{part}-images-idx3-ubyte", read_image_file)
        labels = self._array(originals, f"{part}-labels-idx1-ubyte", read_label_file)
        if images.shape[1:] != self.shape[1:] or len(images) != len(labels):
            raise DataError(
                f"MNIST {part}: images {images.shape} and labels {labels.shape} do not belong together:"
                " 28x28 images and one label for each are needed. Get fresh copies of both files."
            )
        if labels.max() >= self.num_classes:
            raise DataError(f"MNIST {part}: a label is {labels.max()}, they go from 0 to 9. Get a fresh copy.")
        return images, labels

    def _array(self, originals: Originals, name: str, parse: Callable[[str], Tensor]) -> np.ndarray:
        found = next((path for path in originals.names if _original_name(path) == name), None)
        if found is None:
            raise DataError(f"{originals.path} has no {name}.gz. {self.where}")
        plain = originals.scratch / name
        plain.write_bytes(originals.read_unzipped(found))
        # torchvision parses a file by its path, and raises whatever the damage leads to
        try:
            array = parse(str(plain)).numpy()
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{found} is not a whole IDX file of bytes ({error!r}): get a fresh copy.") from error
        originals.check_md5(plain, MD5[name])
        return array


def _original_name(path: str) -> str:
    """What a file is called by its authors; unpackers leave out ``.gz`` or write ``train-images.idx3-ubyte``."""
    return PurePosixPath(path).name.lower().removesuffix(".gz").replace(".", "-")
