"""CIFAR-10 from its binary distribution or from a folder of images. Its Python distribution is pickles: never."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from torchvision.datasets.utils import download_url

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.pictures import Frame, folder_of, picture_contents
from jiio_lightning.data.recipe import Contents
from jiio_lightning.randomness import fixed_permutation

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 50_000, 10_000
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORD = 1 + 3 * 32 * 32  # a label and the three planes of an image


@dataclass(kw_only=True, eq=False)
class CIFAR10(ImageDataModule):
    """CIFAR-10: 45,000 to train, 5,000 to validate (held out of the training images at random), 10,000 to test.

    The 50,000 training images, in the order of the files, are put into a random order, always the same; the last 5,000 are for
    validation. Its two forms have different orders, and so different images there. Test images of a folder are put into such an
    order too: ``test_limit`` takes the first ones.
    """

    num_classes: ClassVar[int] = 10
    version = 2
    title, shape = "cifar10", (3, 32, 32)
    limits = Limits(gigabytes=0.5, megapixels=1)
    where = WHERE[title]

    def download(self, folder: Path) -> Path:
        download_url(f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", str(folder), ARCHIVE, MD5)
        return folder / ARCHIVE

    def read(self, originals: Originals) -> Contents:
        files = {PurePosixPath(name).name: name for name in originals.names}
        if set(BATCHES) <= set(files):
            return self._read_binary(originals, [files[name] for name in BATCHES])
        if "data_batch_1" in files:
            raise DataError(f"{originals.path} holds pickles, which can run any code: they are not read. {self.where}")
        return self._read_images(originals)

    def _read_binary(self, originals: Originals, names: list[str]) -> Contents:
        if originals.strict and originals.path.is_dir():
            raise DataError(f"{originals.path}: the checksum of {ARCHIVE} is known, those of its files are not: name it instead.")
        originals.check_md5(originals.path, MD5)
        batches = [self._records(name, originals.read(name)) for name in names]
        train = np.concatenate(batches[:-1])
        records = np.concatenate([train[fixed_permutation(len(train))], batches[-1]])
        return Contents(
            splits={"train": len(train) - len(train) // 10, "val": len(train) // 10, "test": len(batches[-1])},
            labels=records[:, 0],
            images=[records[:, 1:]],
            origin=partial(originals.origin, "binary"),
            notes={"classes": list(CLASSES)},
        )

    @staticmethod
    def _records(name: str, blob: bytes) -> np.ndarray:
        if len(blob) % RECORD or not blob:
            raise DataError(f"{name} has {len(blob)} bytes, not a multiple of {RECORD}: get a fresh copy.")
        records = np.frombuffer(blob, np.uint8).reshape(-1, RECORD)
        if records[:, 0].max() >= len(CLASSES):
            raise DataError(f"{name}: a label is {records[:, 0].max()}, they go from 0 to 9. Get a fresh copy.")
        return records

    def _read_images(self, originals: Originals) -> Contents:
        train, test = (
            [name for name in originals.images if part in PurePosixPath(name).parts[:-2]] for part in ("train", "test")
        )
        unknown = {folder_of(name) for name in train + test} - set(CLASSES)
        if unknown or not (train and test):
            found = f"unknown classes {', '.join(sorted(unknown))}" if unknown else "no images in one of the two"
            raise DataError(f"{originals.path} is not train/<class>/* and test/<class>/* of CIFAR-10: {found}. {self.where}")
        if originals.strict and (len(train), len(test)) != (TRAIN, TEST):
            raise DataError(
                f"{originals.path} has {len(train)} + {len(test)} images, CIFAR-10 has {TRAIN} + {TEST}: get the rest, or"
                " say --strict false to prepare what is there."
            )
        originals.leave_out(set(originals.images) - {*train, *test}, "images neither in train nor in test")
        # folders come class by class: the first thousand test images would be airplanes
        train, test = ([part[i] for i in fixed_permutation(len(part))] for part in (train, test))
        used = len(train) - len(train) // 10
        splits = {"train": train[:used], "val": train[used:], "test": test}
        return picture_contents(originals, "images", splits, Frame(32), CLASSES)
