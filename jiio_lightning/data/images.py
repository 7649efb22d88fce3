"""Any folder or archive of images: your own faces, for example."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from jsonargparse.typing import NonNegativeInt, PositiveInt

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.pictures import Frame, folder_of, picture_contents
from jiio_lightning.data.recipe import Contents, Shape
from jiio_lightning.randomness import fixed_permutation

SPLITS = ("train", "val", "test")


@dataclass(kw_only=True, eq=False)
class ImageFolder(ImageDataModule):
    """A folder or an archive of images. Where images lie in several folders, each folder is a class.

    What is transparent becomes white. What is hidden or a system's, and files of other kinds, are left out and counted.

    Args:
        name: what the prepared set is called.
        size: side of the images.
        crop: side of the square that is cut from the middle; by default the largest one.
        train: number of training images; by default nine in ten.
        val: number of images for validation, which follow them; by default one in twenty. The rest is for testing.
        shuffle: put the images into a random order, always the same, before they are split (by folder: within each split);
            False: order of names.
        by_folder: take the split from folders called train, val and test instead; the folders in these are the classes.
    """

    name: str = "images"
    size: PositiveInt = 64
    crop: PositiveInt | None = None
    train: PositiveInt | None = None
    val: NonNegativeInt | None = None
    shuffle: bool = True
    by_folder: bool = False

    version = 2
    title = "images"
    options = ("name", "size", "crop", "train", "val", "shuffle", "by_folder")
    where = WHERE[title]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise DataError(f"name is {self.name!r}: it becomes a folder; use letters, digits, '.', '-' and '_'.")

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    @property
    def num_classes(self) -> int:
        """Number of class folders; known once the set is prepared."""
        return max(1, len(self.prepared.manifest.notes["classes"]))

    def read(self, originals: Originals) -> Contents:
        names = originals.images
        splits = self._by_folder(names) if self.by_folder else self._by_count(names)
        frame = Frame(self.size, self.crop)
        return picture_contents(originals, "images", splits, frame, self._classes(names))

    def _classes(self, names: list[str]) -> list[str]:
        """The folders of images, where there are several; by folder, those below train, val and test."""
        without = [name for name in names if self.by_folder and folder_of(name) == _split(name)]
        if without and len(without) < len(names):
            raise DataError(f"by_folder: {without[0]} lies in no class, other images do: put all of them into classes, or none.")
        folders = sorted({folder_of(name) for name in names})
        return folders if len(folders) > 1 and not without else []

    def _by_folder(self, names: list[str]) -> dict[str, list[str]]:
        splits = {split: [name for name in names if _split(name) == split] for split in SPLITS}
        if not splits["train"] or sum(map(len, splits.values())) != len(names):
            raise DataError("by_folder: every image is to lie below a folder called train, val or test.")
        return {split: self._ordered(part) for split, part in splits.items()}

    def _by_count(self, names: list[str]) -> dict[str, list[str]]:
        train = len(names) * 9 // 10 if self.train is None else self.train
        val = len(names) // 20 if self.val is None else self.val
        if min(train, val) < 0 or train + val > len(names):
            raise DataError(f"there are {len(names)} images, fewer than {train} to train and {val} to validate.")
        names = self._ordered(names)
        return {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}

    def _ordered(self, names: list[str]) -> list[str]:
        # a limit takes the first images, which by name are of one class
        return [names[i] for i in fixed_permutation(len(names))] if self.shuffle else names


def _split(name: str) -> str:
    """The topmost folder above an image that is called like a split; empty if none is."""
    return next((part for part in PurePosixPath(name).parts[:-1] if part in SPLITS), "")
