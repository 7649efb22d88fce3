"""Flickr-Faces-HQ: 70,000 photographs of faces, 1024x1024, or their thumbnails of 128x128."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.pictures import Frame, picture_contents
from jiio_lightning.data.recipe import Contents, Recipe, Shape
from jiio_lightning.data.sources import is_image, locate, open_source

COUNT, TRAIN, VAL = 70_000, 59_000, 1_000
PLACES = ("images1024x1024", "images1024x1024.zip", "thumbnails128x128", "thumbnails128x128.zip")


@dataclass(frozen=True, kw_only=True)
class FFHQRecipe(Recipe):
    """Prepare FFHQ from its numbered PNG files.

    Split by number: the authors' first 60,000 train, of which we keep the last 1,000 to validate; their last 10,000
    test.

    Args:
        size: side of the prepared images: 256 in the paper; 128 and 64 also come from the thumbnails.
    """

    size: int = 256

    title: ClassVar[str] = "ffhq"
    where: ClassVar[str] = "Name the folder or zip of images1024x1024 (or of thumbnails128x128, for 128 and 64)."

    @property
    def name(self) -> str:
        return f"ffhq-{self.size}"

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    def read(self, source: Path) -> Contents:
        opened = open_source((locate(source, *PLACES) if source.is_dir() else None) or source)
        numbers = {int(stem): name for name in opened.names() if is_image(name) and (stem := PurePosixPath(name).stem).isdigit()}
        if self.strict and sorted(numbers) != list(range(COUNT)):
            raise DataError(
                f"{opened.path} has {len(numbers)} numbered images, FFHQ has {COUNT} (00000.png to 69999.png): get the"
                " rest, or say --strict false to prepare what is there."
            )
        names = [numbers[number] for number in sorted(numbers)]
        train, val = (round(len(names) * share / COUNT) for share in (TRAIN, VAL))
        splits = {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}
        return picture_contents(opened, "numbered images", splits, Frame(self.size))


@dataclass(kw_only=True, eq=False)
class FFHQ(ImageDataModule):
    """FFHQ faces: 59,000 to train, 1,000 to validate, 10,000 to test, by number.

    Args:
        size: side of the images, 256, 128 or 64.
    """

    size: int = 256

    @property
    def recipe(self) -> FFHQRecipe:
        return FFHQRecipe(size=self.size)
