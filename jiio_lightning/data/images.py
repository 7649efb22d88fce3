"""Any folder or archive of images: your own faces, for example."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.pictures import Frame, folder_of, picture_contents
from jiio_lightning.data.randomness import fixed_permutation
from jiio_lightning.data.recipe import Contents, Recipe, Shape
from jiio_lightning.data.sources import is_image, open_source

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class ImagesRecipe(Recipe):
    """Prepare a folder or an archive of images. Where images lie in several folders, each folder is a class.

    Args:
        name: what to call the prepared set.
        size: side of the prepared images.
        crop: side of the square that is cut from the middle; by default the largest one.
        train: number of training images; by default nine in ten.
        val: number of images for validation, which follow them; by default one in twenty. The rest is for testing.
        shuffle: put the images into a random order, always the same, before they are split; False: order of names.
        by_folder: take the split from folders called train, val and test instead.
    """

    name: str = "images"
    size: int = 64
    crop: int | None = None
    train: int | None = None
    val: int | None = None
    shuffle: bool = True
    by_folder: bool = False

    title: ClassVar[str] = "images"
    where: ClassVar[str] = "Name a folder or an archive of JPEG or PNG files."

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise DataError(f"name is {self.name!r}: it becomes a folder; use letters, digits, '.', '-' and '_'.")

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    def read(self, source: Path) -> Contents:
        opened = open_source(source)
        names = sorted(name for name in opened.names() if is_image(name))
        splits = self._by_folder(names) if self.by_folder else self._by_count(names)
        folders = sorted({folder_of(name) for name in names})
        return picture_contents(opened, "images", splits, Frame(self.size, self.crop), folders if len(folders) > 1 else ())

    def _by_folder(self, names: list[str]) -> dict[str, list[str]]:
        splits = {split: [name for name in names if split in PurePosixPath(name).parts[:-1]] for split in SPLITS}
        if not splits["train"] or sum(map(len, splits.values())) != len(names):
            raise DataError("by_folder: every image is to lie below a folder called train, val or test.")
        return splits

    def _by_count(self, names: list[str]) -> dict[str, list[str]]:
        train = len(names) * 9 // 10 if self.train is None else self.train
        val = len(names) // 20 if self.val is None else self.val
        if min(train, val) < 0 or train + val > len(names):
            raise DataError(f"there are {len(names)} images, fewer than {train} to train and {val} to validate.")
        if self.shuffle:
            names = [names[i] for i in fixed_permutation(len(names))]
        return {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}


@dataclass(kw_only=True, eq=False)
class ImageFolder(ImageDataModule):
    """A set that ``jiio data prepare images`` made, or makes on the fly from ``source``.

    Args:
        name: what the prepared set is called.
        size: side of the images.
        crop: side of the square that is cut from the middle; by default the largest one.
        train: number of training images; by default nine in ten.
        val: number of images for validation, which follow them; by default one in twenty. The rest is for testing.
        shuffle: put the images into a random order, always the same, before they are split; False: order of names.
        by_folder: take the split from folders called train, val and test instead.
    """

    name: str = "images"
    size: int = 64
    crop: int | None = None
    train: int | None = None
    val: int | None = None
    shuffle: bool = True
    by_folder: bool = False

    @property
    def recipe(self) -> ImagesRecipe:
        return ImagesRecipe(
            name=self.name,
            size=self.size,
            crop=self.crop,
            train=self.train,
            val=self.val,
            shuffle=self.shuffle,
            by_folder=self.by_folder,
        )

    @property
    def num_classes(self) -> int:
        """Number of class folders; known once the set is prepared."""
        return max(1, len(self.prepared.manifest.notes["classes"]))
