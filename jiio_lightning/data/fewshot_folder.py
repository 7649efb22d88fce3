"""One few-shot episode of your own: folders of drawings to learn from, and drawings to be named."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from jiio_lightning.data.dataset import ValueRange, normalise
from jiio_lightning.data.episodes import EpisodeBatch
from jiio_lightning.data.errors import DataError, printable, reading
from jiio_lightning.data.found import Found, in_words, listing
from jiio_lightning.data.pictures import decode, plain

UNKNOWN = -1
"""Label of a query image."""


@dataclass(frozen=True)
class Sheet:
    """A drawing on paper: grey, white behind what is transparent, scaled to fit a square, the rest of which is paper.

    A square image becomes what ``jiio data prepare omniglot`` makes of it.
    """

    size: int  # side of the result
    invert: bool = False  # swap black and white

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The pixels, uint8 ``(1, size, size)``."""
        grey = plain(image).convert("L")
        # most of a drawing is paper, which need not be white
        paper = int(np.median(np.asarray(grey)))
        square = ImageOps.pad(grey, (self.size, self.size), Image.Resampling.LANCZOS, color=paper)
        return np.asarray(ImageOps.invert(square) if self.invert else square)[None]


@dataclass(kw_only=True, eq=False)
class FewShotFolder(LightningDataModule):
    """The data of ``jiio predict`` for a net of few-shot learning: it learns N classes from K images of each and names others.

    The net says the size of the images; they are to have the ink of those it was trained on: dark on light paper for Omniglot,
    light on dark for digits.

    Args:
        support: folder of N folders, named like the classes, with K images each, in any format that PIL reads.
        query: folder of images to be named.
        invert: swap black and white, where ink and paper are the other way round.
        value_range: what black and white become, as in the training: a run file's own holds when its data are swapped for this.

    Raises:
        DataError: in ``setup``, before any work, for folders that are no episode or not one for the net.
    """

    support: str | None = None
    query: str | None = None
    invert: bool = False
    value_range: ValueRange = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self, stage: str | None = None) -> None:
        if stage != "predict" or self.trainer is None:
            raise DataError("a FewShotFolder has no labels of its queries to train or test with: it is for `jiio predict`.")
        side, ways = _wanted(self.trainer.lightning_module)
        found = Found()
        classes = _classes(_folder(self.support, "support"), found)
        if ways is not None and len(classes) != ways:
            raise DataError(
                f"{self.support} has {len(classes)} classes, the net tells {ways} apart: give it {ways} folders, or use a net"
                f" trained with --data.ways {len(classes)} --model.net.num_classes {len(classes)}."
            )
        query = _images(_folder(self.query, "query"), found)
        self.classes, self.files = tuple(map(printable, classes)), tuple(printable(path.name) for path in query)
        if found.left_out:
            rank_zero_info(f"left out of {self.support} and {self.query}: {in_words(found.counts)}")
        support = [path for images in classes.values() for path in images]
        self.episode = EpisodeBatch(
            support=self._read(support, side),
            support_label=torch.arange(len(classes)).repeat_interleave(len(support) // len(classes))[None],
            query=self._read(query, side),
            query_label=torch.full((1, len(query)), UNKNOWN),
            index=torch.zeros(1, dtype=torch.int64),
        )

    def predict_dataloader(self) -> DataLoader[EpisodeBatch]:
        return DataLoader([self.episode], batch_size=None)  # type: ignore[arg-type]

    def _read(self, paths: list[Path], side: int) -> Tensor:
        """Images as one task's ``(1, E, 1, side, side)``."""
        pixels = []
        for path in paths:
            with reading(path):
                pixels.append(decode(str(path), path.read_bytes(), Sheet(side, self.invert)))
        return normalise(torch.from_numpy(np.stack(pixels)), 255, self.value_range)[None]


def _wanted(module: object) -> tuple[int, int | None]:
    """Side of the images and number of classes that a module's net is made for; None: any."""
    net = getattr(module, "net", None)
    if not hasattr(net, "image_shape") or not hasattr(net, "num_classes"):
        raise DataError(f"{type(module).__name__} has no net of few-shot learning: use a run file such as tasks/omniglot.yaml.")
    depth, height, width = net.image_shape  # type: ignore[union-attr]
    if depth != 1 or height != width:
        raise DataError(f"the net is for images of {depth}x{height}x{width}; a FewShotFolder has grey squares.")
    return height, net.num_classes  # type: ignore[union-attr]


def _folder(name: str | None, option: str) -> Path:
    path = None if name is None else Path(name).expanduser()
    if path is None or not path.is_dir():
        raise DataError(f"data.{option} is {path}, which is no folder: name one with --data.{option}.")
    return path


def _classes(support: Path, found: Found) -> dict[str, list[Path]]:
    """The images of each class, by its name."""
    paths = [Path(entry.path) for _, entry in listing(support, found, f"{support}/")]
    stray = [path for path in paths if not path.is_dir()]
    if stray:
        raise DataError(f"{stray[0]} lies in no class: {support} is to hold one folder for each class and nothing else.")
    if not paths:
        raise DataError(f"{support} is empty: it is to hold one folder for each class, with images to learn it from.")
    classes = {path.name: _images(path, found) for path in paths}
    if len({len(images) for images in classes.values()}) > 1:
        listed = ", ".join(f"{name} {len(images)}" for name, images in classes.items())
        raise DataError(f"{support} has another number of images in some classes than in others ({listed}): make them equal.")
    return classes


def _images(folder: Path, found: Found) -> list[Path]:
    """Every file of a folder that is not hidden or a system's; one that is no image is an error when it is read."""
    paths = [Path(entry.path) for _, entry in listing(folder, found, f"{folder}/")]
    inner = [path for path in paths if not path.is_file()]
    if inner or not paths:
        what = f"holds the folder {inner[0].name}" if inner else "is empty"
        raise DataError(f"{folder} {what}: it is to hold images and nothing else.")
    return paths
