"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import sklearn
from sklearn.datasets import load_digits

from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.randomness import fixed_permutation
from jiio_lightning.data.recipe import Contents, Recipe, Shape


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
