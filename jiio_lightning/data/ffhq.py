"""Flickr-Faces-HQ: 70,000 photographs of faces, 1024x1024, or their thumbnails of 128x128."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from jsonargparse.typing import PositiveInt

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.pictures import Frame, picture_contents
from jiio_lightning.data.recipe import Contents, Shape

COUNT, TRAIN, VAL = 70_000, 59_000, 1_000
PLACES = ("images1024x1024", "images1024x1024.zip", "thumbnails128x128", "thumbnails128x128.zip")


@dataclass(kw_only=True, eq=False)
class FFHQ(ImageDataModule):
    """FFHQ faces, numbered PNG files: 59,000 to train, 1,000 to validate, 10,000 to test, by number.

    The authors' first 60,000 train, of which the last 1,000 validate; their last 10,000 test.

    Args:
        size: side of the images: 256 in the paper; 128 and 64 also come from the thumbnails.
    """

    size: PositiveInt = 256

    title, options = "ffhq", ("size",)
    limits = Limits(gigabytes=100, megapixels=2)
    where = WHERE[title]

    @property
    def name(self) -> str:
        return f"ffhq-{self.size}"

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    def read(self, originals: Originals) -> Contents:
        pictures = originals.inside(*PLACES) or originals
        numbered = [name for name in pictures.images if PurePosixPath(name).stem.isdecimal()]
        pictures.leave_out(set(pictures.images) - set(numbered), "images without a number")
        numbers = {int(PurePosixPath(name).stem): name for name in numbered}
        if len(numbers) < len(numbered):
            raise DataError(f"{pictures.path} has some numbers twice: name the folder of one size only. {self.where}")
        if originals.strict and sorted(numbers) != list(range(COUNT)):
            raise DataError(
                f"{pictures.path} has {len(numbers)} numbered images, FFHQ has {COUNT} (00000.png to 69999.png): get the"
                " rest, or say --strict false to prepare what is there."
            )
        names = [numbers[number] for number in sorted(numbers)]
        train, val = (round(len(names) * share / COUNT) for share in (TRAIN, VAL))
        splits = {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}
        return picture_contents(pictures, "numbered images", splits, Frame(self.size))
