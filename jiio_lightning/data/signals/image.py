"""An image as a signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.found import Found, listing
from jiio_lightning.data.pictures import decode, plain
from jiio_lightning.data.signals.base import GridSignal, as_bytes, file_at


@dataclass(kw_only=True, eq=False)
class ImageSignal(GridSignal):
    """Any image file, or one of a folder's; without a path scikit-learn's photograph of a temple.

    Args:
        item: which image of a folder, in the order of names.
        size: pixels of the shorter side that a larger image is reduced to; by default it stays as it is.
        grey: one channel instead of three.

    Example:
        >>> data = ImageSignal(size=32, stride=2)
        >>> data.batch(0).c.shape, data.held("test")[0].values.shape, data.grid_shape  # 427 x 640 pixels, reduced
        (torch.Size([384, 2]), torch.Size([384, 3]), (32, 48))
    """

    item: NonNegativeInt = 0
    size: PositiveInt | None = None
    grey: bool = False

    def read(self) -> Tensor:
        if self.path is None:
            pixels = self._pixels(Image.fromarray(load_sample_image("china.jpg")))
        else:
            path = chosen(file_at(self.path, "an image file or a folder of images"), self.item)
            pixels = decode(str(path), path.read_bytes(), self._pixels, megapixels=math.inf)
        return torch.from_numpy(pixels).float() / 127.5 - 1

    def write(self, values: Tensor, folder: Path) -> Path:
        path = folder / "reconstruction.png"
        Image.fromarray(as_bytes(values).squeeze(-1) if values.shape[-1] == 1 else as_bytes(values)).save(path)
        return path

    def _pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 ``(H, W, C)``."""
        image = plain(image).convert("L" if self.grey else "RGB")
        if self.size is not None and self.size < min(image.size):
            share = self.size / min(image.size)
            image = image.resize([round(share * n) for n in image.size], Image.Resampling.LANCZOS)
        pixels = np.array(image)
        return pixels[..., None] if self.grey else pixels


def chosen(path: Path, item: int) -> Path:
    """The file, or that number ``item`` of a folder's images."""
    if path.is_file():
        return path
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    names = [entry for name, entry in listing(path, Found()) if Path(name).suffix.lower() in suffixes]
    if item >= len(names):
        raise DataError(f"{path} holds {len(names)} images, there is no number {item}: set data.item or data.path")
    return Path(names[item].path)
