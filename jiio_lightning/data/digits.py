"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from jiio_lightning.data.episode_module import EpisodeDataModule
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.prepared import MappedRows
from jiio_lightning.data.randomness import fixed_permutation
from jiio_lightning.data.recipe import Contents, Recipe, Shape

CHARACTERS = {"train": range(5), "val": range(5), "test": range(5, 10)}
DRAWINGS = 174
"""Of the digit of which there are fewest."""


@dataclass(frozen=True, kw_only=True)
class DigitsRecipe(Recipe):
    """Prepare the digits: nothing to fetch, pixels 0 to 16.

    Split: a permutation with a fixed seed, its first 1,297 to train, the next 200 to validate, the last 300 to test.
    """

    title: ClassVar[str] = "digits"
    needs_source: ClassVar[bool] = False

    @property
    def shape(self) -> Shape:
        return 1, 8, 8

    def read(self, source: Path) -> Contents:
        digits = load_digits()
        order = fixed_permutation(len(digits.target))
        return Contents(
            splits={"train": 1297, "val": 200, "test": 300},
            labels=digits.target[order],
            images=[(order.argsort(), digits.images[:, None].astype("uint8"))],
            source=lambda: {"form": "scikit-learn", "version": sklearn.__version__},
            levels=16,
        )


@dataclass(kw_only=True, eq=False)
class Digits(ImageDataModule):
    """8x8 digits, prepared by the first run: 1,297 to train, 200 to validate, 300 to test (a fixed seeded split).

    With the default value range a pixel p of 0 .. 16 becomes exactly p / 8 - 1.
    """

    num_classes: ClassVar[int] = 10

    @property
    def recipe(self) -> DigitsRecipe:
        return DigitsRecipe()


@dataclass(kw_only=True, eq=False)
class DigitEpisodes(EpisodeDataModule):
    """N-way K-shot episodes of 8x8 digits: 0 to 4 to train and validate, 5 to 9 to test; 174 drawings of each.

    Five characters are few to learn from: for smoke runs, demonstrations and tests. A turned 6 is a 9: no rotation unless asked
    for. Ink is bright, as in Digits.

    Raises:
        DataError: for more ways than characters.
    """

    rotate: bool = False

    drawings: ClassVar[int] = DRAWINGS

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = max(self.plan(split).ways for split in CHARACTERS)
        if ways > len(CHARACTERS["test"]):
            raise DataError(f"{ways} ways: there are 5 digits to train and 5 to test; set ways and train_ways to 5 at most.")

    @property
    def recipe(self) -> DigitsRecipe:
        return DigitsRecipe()

    def characters(self, split: str) -> MappedRows:
        """All drawings of all digits."""
        return self.resident(self._everything("images"))

    def places(self, split: str) -> np.ndarray:
        labels = self._everything("labels").tensor.numpy()
        return np.stack([np.flatnonzero(labels == digit)[:DRAWINGS] for digit in CHARACTERS[split]])

    def _everything(self, array: str) -> MappedRows:
        """The prepared rows of all splits: those of ``Digits`` are by drawing, these are by digit."""
        return MappedRows(self.prepared.folder / f"{array}.npy", 0, sum(self.prepared.manifest.splits.values()))
