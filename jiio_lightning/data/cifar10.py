"""CIFAR-10 from its binary distribution or from a folder of images. Its Python distribution is pickles: never."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from torchvision.datasets.utils import download_url

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.pictures import Frame, folder_of, picture_contents
from jiio_lightning.data.randomness import fixed_permutation
from jiio_lightning.data.recipe import Contents, Recipe, Shape
from jiio_lightning.data.sources import Source, check_md5, is_image, md5, open_source, provenance

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 50_000, 10_000
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORD = 1 + 3 * 32 * 32  # a label and the three planes of an image


@dataclass(frozen=True, kw_only=True)
class CIFAR10Recipe(Recipe):
    """Prepare CIFAR-10 from cifar-10-binary.tar.gz, or from ``train/<class>/*`` and ``test/<class>/*``.

    The 50,000 training images, in the order of the files, are put into a random order, always the same; the last
    5,000 are for validation. The two forms have different orders, and so different images there.
    """

    title: ClassVar[str] = "cifar10"
    where: ClassVar[str] = f"Name {ARCHIVE}, or a folder or archive with train/<class>/* and test/<class>/*."

    @property
    def shape(self) -> Shape:
        return 3, 32, 32

    def download(self, folder: Path) -> Path:
        with self.downloading():
            download_url(f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", str(folder), ARCHIVE, MD5)
        return folder / ARCHIVE

    def read(self, source: Path) -> Contents:
        opened = open_source(source)
        files = {PurePosixPath(name).name: name for name in opened.names()}
        if set(BATCHES) <= set(files):
            return self._read_binary(opened, [files[name] for name in BATCHES])
        if "data_batch_1" in files:
            raise DataError(f"{opened.path} holds pickles, which can run any code: they are not read. {self.where}")
        return self._read_images(opened)

    def _read_binary(self, source: Source, names: list[str]) -> Contents:
        if self.strict:
            if source.path.is_dir():
                raise DataError(
                    f"{source.path}: the checksum of {ARCHIVE} is known, those of its files are not: name it instead."
                )
            check_md5(source.path, md5(source.path), MD5)
        blobs = dict(source.read(names))
        train, test = self._records(blobs, names[:-1]), self._records(blobs, names[-1:])
        train = train[fixed_permutation(len(train))]
        return self._contents(source, "binary", train, test)

    @staticmethod
    def _records(blobs: dict[str, bytes], names: list[str]) -> np.ndarray:
        for name in names:
            if len(blobs[name]) % RECORD or not blobs[name]:
                raise DataError(f"{name} has {len(blobs[name])} bytes, not a multiple of {RECORD}: get a fresh copy.")
        records = np.frombuffer(b"".join(blobs[name] for name in names), np.uint8).reshape(-1, RECORD)
        if records[:, 0].max() >= len(CLASSES):
            raise DataError(f"{', '.join(names)}: a label is {records[:, 0].max()}, they go from 0 to 9. Get a fresh copy.")
        return records

    def _contents(self, source: Source, form: str, train: np.ndarray, test: np.ndarray) -> Contents:
        records = np.concatenate([train, test])
        return Contents(
            splits=_split_sizes(len(train), len(test)),
            labels=records[:, 0],
            images=[(np.arange(len(records)), records[:, 1:])],
            source=partial(provenance, source, form),
            notes={"classes": list(CLASSES)},
        )

    def _read_images(self, source: Source) -> Contents:
        names = sorted(name for name in source.names() if is_image(name))
        parts = {part: [name for name in names if part in PurePosixPath(name).parts[:-2]] for part in ("train", "test")}
        self._check_counts(source, parts)
        train = [parts["train"][i] for i in fixed_permutation(len(parts["train"]))]
        kept = _split_sizes(len(train), 0)["train"]
        splits = {"train": train[:kept], "val": train[kept:], "test": parts["test"]}
        return picture_contents(source, "images", splits, Frame(32), CLASSES)

    def _check_counts(self, source: Source, parts: dict[str, list[str]]) -> None:
        unknown = {folder_of(name) for part in parts.values() for name in part} - set(CLASSES)
        if unknown or not all(parts.values()):
            found = f"unknown classes {', '.join(sorted(unknown))}" if unknown else "no images in one of the two"
            raise DataError(f"{source.path} is not train/<class>/* and test/<class>/* of CIFAR-10: {found}. {self.where}")
        counts = len(parts["train"]), len(parts["test"])
        if self.strict and counts != (TRAIN, TEST):
            raise DataError(
                f"{source.path} has {counts[0]} + {counts[1]} images, CIFAR-10 has {TRAIN} + {TEST}: get the rest, or"
                " say --strict false to prepare what is there."
            )


def _split_sizes(train: int, test: int) -> dict[str, int]:
    return {"train": train - train // 10, "val": train // 10, "test": test}


@dataclass(kw_only=True, eq=False)
class CIFAR10(ImageDataModule):
    """CIFAR-10: 45,000 to train, 5,000 to validate (held out of the training images at random), 10,000 to test."""

    num_classes: ClassVar[int] = 10

    @property
    def recipe(self) -> CIFAR10Recipe:
        return CIFAR10Recipe()
