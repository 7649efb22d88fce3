"""From image files to arrays: decode, cut the middle square, resize."""

import io
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms import functional as transforms

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.recipe import Contents, Placed
from jiio_lightning.data.sources import Source, provenance

CHUNK = 64  # images in memory at once, decoded by one thread a core
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Frame:
    """The part of an image to keep and its size.

    Args:
        size: side of the result.
        crop: side of the square cut from the middle; None: the shorter side of the image.
        mode: ``RGB`` or ``L``.
    """

    size: int
    crop: int | None = None
    mode: str = "RGB"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The pixels, uint8 ``(C, size, size)``: bilinear with antialiasing, as torchvision's Resize does."""
        image = ImageOps.exif_transpose(image).convert(self.mode)
        side = min(image.size) if self.crop is None else self.crop
        if not self.size <= side <= min(image.size):
            width, height = image.size
            raise ValueError(f"{width}x{height} pixels are too few for a square of {side} and a size of {self.size}")
        square = transforms.resize(transforms.center_crop(image, [side, side]), [self.size, self.size])
        return np.atleast_3d(np.asarray(square)).transpose(2, 0, 1)


def decode(file: tuple[str, bytes], frame: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """One image file as an array."""
    name, blob = file
    try:
        with Image.open(io.BytesIO(blob)) as image:
            return frame(image)
    except UNDECODABLE as error:
        raise DataError(
            f"{name} is not an image that can be used: {error}. Replace the file and run the command again."
        ) from error


def place(source: Source, positions: dict[str, int], frame: Frame) -> Iterator[Placed]:
    """Decode the files of a source, as they come, on all cores; ``positions`` says where each belongs."""
    files = iter(source.read(positions.keys()))
    with ThreadPool(os.cpu_count()) as pool:
        while chunk := list(islice(files, CHUNK)):
            images = pool.map(partial(decode, frame=frame), chunk)
            yield np.array([positions[name] for name, _ in chunk]), np.stack(images)


def picture_contents(
    source: Source, form: str, splits: dict[str, list[str]], frame: Frame, classes: Collection[str] = ()
) -> Contents:
    """Contents made of image files: the names of each split in their order; ``classes`` are folders of the files."""
    names = [name for part in splits.values() for name in part]
    if not names:
        raise DataError(f"{source.path} holds no images.")
    return Contents(
        splits={split: len(part) for split, part in splits.items()},
        labels=labels_by_folder(names, classes),
        images=place(source, {name: position for position, name in enumerate(names)}, frame),
        source=partial(provenance, source, form),
        notes={"frame": {"size": frame.size, "crop": frame.crop, "filter": "bilinear, antialiased"}, "classes": list(classes)},
    )


def labels_by_folder(names: Iterable[str], classes: Collection[str]) -> np.ndarray:
    """The class of each file, by the folder it lies in; zeros where there are no classes."""
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[folder_of(name)] if number else 0 for name in names])


def folder_of(name: str) -> str:
    """The folder that a file lies in, without what is above it."""
    return name.rpartition("/")[0].rpartition("/")[2]
