"""What a data set is made of: its originals become prepared arrays."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jiio_lightning.data.catalogue import Shape
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.originals import Limits, Originals


@dataclass(frozen=True)
class Contents:
    """What a recipe found in the originals, in the order in which it is to be stored: training samples first."""

    splits: dict[str, int]  # number of samples of train, val and test
    labels: np.ndarray  # (N,) int64
    images: Iterable[np.ndarray]  # uint8 (k, C, H, W), N in all; made while they are written
    origin: Callable[[], dict[str, Any]]  # what the manifest says about the originals, asked when all have been read
    levels: int = 255  # value of a full pixel
    notes: dict[str, Any] = field(default_factory=dict)


class Recipe(ABC):
    """How the originals of a data set become prepared arrays. Every data module of a prepared set is one."""

    title: ClassVar[str]  # NAME in 'jiio data prepare NAME'
    where: ClassVar[str] = ""  # where a user gets the originals; empty: nothing is needed
    options: ClassVar[tuple[str, ...]] = ()  # arguments that change what is written
    limits: ClassVar[Limits] = Limits()  # what the originals may unpack to
    version: ClassVar[int] = 1  # raise it with every change of what is written
    shape: Shape  # of one prepared image

    @abstractmethod
    def read(self, originals: Originals) -> Contents:
        """Plan the preparation; raises DataError when the originals are not what they should be."""

    def download(self, folder: Path) -> Path:
        """Fetch the originals into ``folder``, where the set allows it, and return what to read."""
        raise DataError(f"{self.title} is not downloaded by this program. {self.where} Then: {self.command}")

    @property
    def name(self) -> str:
        """Folder of the prepared set; every option that changes the pixels is part of it."""
        return self.title

    @property
    def command(self) -> str:
        """The command that prepares this set."""
        values = {name: getattr(self, name) for name in self.options}
        changed = [f" --{name} {value}" for name, value in values.items() if value != getattr(type(self), name)]
        return f"jiio data prepare {self.title}{' --source PATH' if self.where else ''}{''.join(changed)}"

    def identity(self) -> dict[str, Any]:
        """What the manifest must agree with: the set, the version and the options that change its bytes."""
        options = {name: getattr(self, name) for name in self.options}
        return {"set": self.title, "version": self.version, "options": options}
