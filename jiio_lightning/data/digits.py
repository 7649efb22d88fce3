"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from jiio_lightning.data.episodes import EpisodeDataModule
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.recipe import Contents, Recipe
from jiio_lightning.data.rows import MappedRows
from jiio_lightning.randomness import fixed_permutation

CHARACTERS = {"train": range(5), "val": range(5), "test": range(5, 10)}


class DigitsRecipe(Recipe):
    """Nothing to fetch; pixels 0 to 16."""

    title, shape = "digits", (1, 8, 8)

    def read(self, originals: Originals) -> Contents:
        digits = load_digits()
        order = fixed_permutation(len(digits.target))
        return Contents(
            splits={"train": 1297, "val": 200, "test": 300},
            labels=digits.target[order],
            images=[digits.images[order, None]],
            origin=lambda: {"form": "scikit-learn", "version": sklearn.__version__},
            levels=16,
        )


@dataclass(kw_only=True, eq=False)
class Digits(DigitsRecipe, ImageDataModule):
    """8x8 digits, prepared by the first run: 1,297 to train, 200 to validate, 300 to test (a fixed seeded split).

    With the default value range a pixel p of 0 .. 16 becomes exactly p / 8 - 1.
    """

    num_classes: ClassVar[int] = 10


@dataclass(kw_only=True, eq=False)
class DigitEpisodes(DigitsRecipe, EpisodeDataModule):
    """N-way K-shot episodes of 8x8 digits: 0 to 4 to train and validate, 5 to 9 to test; 174 drawings of each.

    Five characters are few to learn from: for smoke runs, demonstrations and tests. A turned 6 is a 9: no rotation unless asked
    for. Ink is bright, as in Digits.

    Raises:
        DataError: for more ways than characters.
    """

    rotate: bool = False

    drawings: ClassVar[int] = 174  # of the digit of which there are fewest

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = max(self.plan(split).ways for split in CHARACTERS)
        if ways > len(CHARACTERS["test"]):
            raise DataError(f"{ways} ways: there are 5 digits to train and 5 to test; set ways and train_ways to 5 at most.")

    def characters(self, split: str) -> MappedRows:
        """All drawings of all digits: the prepared splits are by drawing, these are by digit."""
        return self.resident(self.prepared.rows("images"))

    def places(self, split: str) -> np.ndarray:
        labels = self.prepared.rows("labels").tensor.numpy()
        return np.stack([np.flatnonzero(labels == digit)[: self.drawings] for digit in CHARACTERS[split]])
