"""From image files to arrays: decode, cut the middle square, resize."""

import io
import os
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms import functional as transforms

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.recipe import Contents

CHUNK = 64  # images in memory at once, decoded by one thread a core
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Frame:
    """The part of an image to keep and its size."""

    size: int  # side of the result
    crop: int | None = None  # side of the square cut from the middle; None: the shorter side of the image

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The pixels, uint8 ``(3, size, size)``: bilinear with antialiasing, as torchvision's Resize does."""
        image = ImageOps.exif_transpose(image).convert("RGB")
        side = min(image.size) if self.crop is None else self.crop
        if not self.size <= side <= min(image.size):
            width, height = image.size
            raise ValueError(f"{width}x{height} pixels are too few for a square of {side} and a size of {self.size}")
        square = transforms.resize(transforms.center_crop(image, [side, side]), [self.size, self.size])
        return np.asarray(square).transpose(2, 0, 1)


def decode(name: str, blob: bytes, frame: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """One image file as an array."""
    try:
        with Image.open(io.BytesIO(blob)) as image:
            return frame(image)
    except UNDECODABLE as error:
        raise DataError(
            f"{name} is not an image that can be used: {error}. Replace the file and run the command again."
        ) from error


def decoded(originals: Originals, names: list[str], frame: Frame) -> Iterator[np.ndarray]:
    """The images of some files in their order, on all cores: uint8 ``(k, 3, size, size)``."""
    with ThreadPool(os.cpu_count()) as pool:  # threads are enough: PIL releases the GIL while it decodes
        for start in range(0, len(names), CHUNK):
            # read one after the other: the checksum of the originals is in the order of reading
            files = [(name, originals.read(name), frame) for name in names[start : start + CHUNK]]
            yield np.stack(pool.starmap(decode, files))


def picture_contents(
    originals: Originals, form: str, splits: dict[str, list[str]], frame: Frame, classes: Collection[str] = ()
) -> Contents:
    """Contents made of image files: the names of each split in their order.

    A file's label is the place of its folder in ``classes``, or 0 where there are none.
    """
    names = [name for part in splits.values() for name in part]
    if not names:
        raise DataError(f"{originals.path} holds no images.")
    number = {name: label for label, name in enumerate(classes)}
    return Contents(
        splits={split: len(part) for split, part in splits.items()},
        labels=np.array([number[folder_of(name)] if classes else 0 for name in names]),
        images=decoded(originals, names, frame),
        origin=partial(originals.origin, form),
        notes={"frame": {"size": frame.size, "crop": frame.crop, "filter": "bilinear, antialiased"}, "classes": list(classes)},
    )


def folder_of(name: str) -> str:
    """The folder that a file lies in, without what is above it."""
    return PurePosixPath(name).parent.name
