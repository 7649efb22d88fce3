"""From image files to arrays: decode, cut the middle square, resize."""

import io
import os
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms import functional as transforms

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.recipe import Contents

CHUNK = 64  # images in memory at once, decoded by one thread a core
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # two tags of a TIFF, a value of the second


@dataclass(frozen=True)
class Frame:
    """The part of an image to keep and its size."""

    size: int  # side of the result
    crop: int | None = None  # side of the square cut from the middle; None: the shorter side of the image

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The pixels, uint8 ``(3, size, size)``: bilinear with antialiasing, as torchvision's Resize does."""
        image = _in_mode(plain(image), "RGB")
        side = min(image.size) if self.crop is None else self.crop
        if not self.size <= side <= min(image.size):
            width, height = image.size
            raise ValueError(f"{width}x{height} pixels are too few for a square of {side} and a size of {self.size}")
        square = transforms.resize(transforms.center_crop(image, [side, side]), [self.size, self.size])
        return np.asarray(square).transpose(2, 0, 1)


def plain(image: Image.Image) -> Image.Image:
    """An image as it is shown, in bytes: mode L or RGB, upright, on white where it is transparent.

    Grey pixels of 16 bits are scaled by the largest value that they can have.

    >>> plain(Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))).mode
    'L'

    Raises:
        ValueError: for pixels of which nothing says what white is (floats, integers of 32 bits).
    """
    upright = ImageOps.exif_transpose(image)
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError(f"nothing says which of its values is white (mode {image.mode}); save it with 8 or 16 bits a pixel")
    if image.mode.startswith("I"):
        return _from_16_bits(upright, getattr(image, "tag_v2", {}))
    if "transparency" in image.info and image.format == "PNG" and image.mode in ("L", "RGB") and _raw_mode(image) != image.mode:
        # Pillow compares it with the pixels after they have become bytes
        raise ValueError("its transparent colour is not one of 8 bits; save it with 8 bits a pixel")
    if upright.mode == "La":  # has no other way out
        upright = upright.convert("LA")
    if upright.has_transparency_data:
        upright = _in_mode(upright, "RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return _in_mode(upright, "L" if upright.mode in ("1", "L") else "RGB")


def _from_16_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Grey pixels as bytes; the tags of a TIFF say how many bits there are, and whether 0 is white."""
    pixels, white = np.asarray(image), 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    if not 0 <= pixels.min() <= pixels.max() <= white:
        raise ValueError(f"its pixels go from {pixels.min()} to {pixels.max()}, not from 0 to {white}")
    scaled = np.rint(pixels * (255 / white)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    if (hidden := image.info.get("transparency")) is not None:
        scaled[pixels == hidden] = 255
    return Image.fromarray(scaled)


def _raw_mode(image: Image.Image) -> str:
    """What the pixels are in the file, as long as they have not been decoded."""
    return image.tile[0].args if image.tile else image.mode  # type: ignore[return-value]


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Without the copy that ``convert`` makes of an image that has the mode."""
    return image if image.mode == mode else image.convert(mode)


def decode(
    name: str, blob: bytes, frame: Callable[[Image.Image], np.ndarray], megapixels: float = Limits().megapixels
) -> np.ndarray:
    """One image file as an array."""
    try:
        with Image.open(io.BytesIO(blob)) as image:
            if image.width * image.height > megapixels * 1e6:
                raise ValueError(
                    f"it has {image.width}x{image.height} pixels, the limit is {megapixels:g} million (which --max_megapixels of"
                    " 'jiio data prepare' raises)"
                )
            if image.format == "PNG":  # its checksums: decoding looks at some of them only
                Image.open(io.BytesIO(blob)).verify()
            return frame(image)
    except UNDECODABLE as error:
        raise DataError(
            f"{name} is not an image that can be used: {error}. Replace the file and run the command again."
        ) from error


@contextmanager
def _own_limit() -> Iterator[None]:
    """Without Pillow's limit on the size of an image, where ``decode`` has one."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def decoded(originals: Originals, names: list[str], frame: Frame) -> Iterator[np.ndarray]:
    """The images of some files in their order, on all cores: uint8 ``(k, 3, size, size)``."""
    limit = originals.limits.megapixels
    with _own_limit(), ThreadPool(os.cpu_count()) as pool:  # threads are enough: PIL releases the GIL while it decodes
        for start in range(0, len(names), CHUNK):
            # read one after the other: the checksum of the originals is in the order of reading
            files = [(name, originals.read(name), frame, limit) for name in names[start : start + CHUNK]]
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
        notes={
            "frame": {"size": frame.size, "crop": frame.crop, "filter": "bilinear, antialiased", "background": "white"},
            "classes": list(classes),
        },
    )


def folder_of(name: str) -> str:
    """The folder that a file lies in, without what is above it."""
    return PurePosixPath(name).parent.name
