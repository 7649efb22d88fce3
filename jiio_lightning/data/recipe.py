"""What a data set is made of: a recipe reads the originals and says what the prepared arrays contain."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jiio_lightning.data.errors import DataError

Shape = tuple[int, int, int]  # channels, height, width
Placed = tuple[np.ndarray, np.ndarray]  # positions (k,) and the uint8 images (k, C, H, W) that belong there


@dataclass(frozen=True)
class Contents:
    """What a recipe found in its source, in the order in which it is to be stored: training samples first.

    ``images`` may come in any order, as an archive has them; each position exactly once.
    """

    splits: dict[str, int]  # number of samples of train, val and test
    labels: np.ndarray  # (N,) int64
    images: Iterable[Placed]
    source: Callable[[], dict[str, str]]  # provenance for the manifest, asked when all images have been read
    levels: int = 255  # value of a full pixel
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How the originals of one data set become prepared arrays; the fields are its options.

    Args:
        strict: refuse anything but the original: other checksums, another number of images. With False a part of
            the set, or one of your own in the same layout, can be prepared too; the manifest says so.
    """

    strict: bool = True

    title: ClassVar[str]  # NAME in 'jiio data prepare NAME'
    version: ClassVar[int] = 1  # raise it with every change of what is written
    where: ClassVar[str] = ""  # where a user gets the originals
    needs_source: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Folder of the prepared set; every option that changes the pixels is part of it."""
        return self.title

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Shape of one prepared image."""

    @abstractmethod
    def read(self, source: Path) -> Contents:
        """Plan the preparation from ``source``; raises DataError when the source is not what it should be."""

    def download(self, folder: Path) -> Path:
        """Fetch the originals into ``folder``, where the set allows it, and return the source to read."""
        raise DataError(f"{self.title} is not downloaded by this program. {self.where} Then: {self.command}")

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """Turn whatever a download raises into one clear error that says how to go on without it."""
        try:
            yield
        except Exception as error:  # every one of the libraries below torchvision has exceptions of its own
            reason = " ".join(str(error).split())
            raise DataError(f"{self.title} could not be downloaded ({reason}). {self.where} Then: {self.command}") from error

    @property
    def command(self) -> str:
        """The command that prepares this set."""
        values = {option.name: (getattr(self, option.name), option.default) for option in fields(self)}
        options = [f" --{name} {value}" for name, (value, default) in values.items() if value != default]
        source = " --source PATH" if self.needs_source else ""
        return f"jiio data prepare {self.title}{source}{''.join(options)}"

    def identity(self) -> dict[str, Any]:
        """What the manifest must agree with: the set, the version and the options that change its bytes."""
        options = {key: value for key, value in asdict(self).items() if key != "strict"}
        return {"set": self.title, "version": self.version, "options": options}
