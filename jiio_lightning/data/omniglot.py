"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets.utils import download_url

from jiio_lightning.data.episode_module import EpisodeDataModule
from jiio_lightning.data.errors import DataError
from jiio_lightning.data.pictures import UNDECODABLE
from jiio_lightning.data.prepared import MappedRows, sha256
from jiio_lightning.data.recipe import Contents, Placed, Recipe, Shape
from jiio_lightning.data.sources import check_md5, is_image, locate, md5, open_source, reading

PARTS = ("images_background", "images_evaluation")
SPLIT_FILE = Path(__file__).with_name("omniglot_split.txt")
DRAWINGS, SIDE = 20, 105  # of each character, and the originals' side in pixels

Character = np.ndarray  # bool (20, 105, 105), True is paper


def drawing_hash(drawing: np.ndarray) -> str:
    """What identifies a drawing: its bits."""
    return hashlib.sha256(np.packbits(drawing).tobytes()).hexdigest()[:16]


def in_order(character: Character) -> Character:
    """The drawings sorted by their hashes, so that every source gives the same bytes."""
    return character[np.argsort([drawing_hash(drawing) for drawing in character])]


def read_split() -> dict[str, list[str]]:
    """Meta-training and meta-test characters: each is named by the least hash of its drawings.

    The arrays and the zips have different names and may have another order; the least hash is the same.
    """
    lines = [line.split() for line in SPLIT_FILE.read_text().splitlines() if not line.startswith("#")]
    return {split: [name for kind, name in lines if kind == split] for split in ("train", "test")}


@dataclass(frozen=True, kw_only=True)
class OmniglotRecipe(Recipe):
    """Prepare Omniglot: 1,200 characters for meta-training, 423 for meta-testing, as omniglot_split.txt lists them.

    Args:
        size: side of the prepared images, 28 in the paper (Lanczos, ink is black, as in the released code).
    """

    size: int = 28

    title: ClassVar[str] = "omniglot"
    where: ClassVar[str] = "Name the folder with images_background and images_evaluation, both as .zip or both as .npz."

    @property
    def name(self) -> str:
        return f"omniglot-{self.size}"

    @property
    def shape(self) -> Shape:
        return 1, self.size, self.size

    def download(self, folder: Path) -> Path:
        with self.downloading():
            for part, checksum in datasets.Omniglot.zips_md5.items():
                url = f"{datasets.Omniglot.download_url_prefix}/{part}.zip"
                download_url(url, str(folder), f"{part}.zip", checksum)
        return folder

    def read(self, source: Path) -> Contents:
        parts = [self._part(source, name) for name in PARTS]
        characters = {drawing_hash(c[0]): c for part in parts for c in map(in_order, self._characters(part))}
        split = self._known(characters)
        names = split["train"] + split["test"]
        return Contents(
            splits={"train": len(split["train"]) * DRAWINGS, "val": 0, "test": len(split["test"]) * DRAWINGS},
            labels=np.arange(len(names)).repeat(DRAWINGS),
            images=self._placed(characters, names),
            source=partial(self._provenance, parts),
            notes={"characters": names, "drawings": DRAWINGS},
        )

    def _part(self, source: Path, name: str) -> Path:
        part = locate(source, f"{name}.npz", f"{name}.zip", name, f"omniglot-py/{name}.zip", f"omniglot-py/{name}")
        if part is None:
            raise DataError(f"{source} has no {name}.npz or {name}.zip. {self.where}")
        if self.strict and part.suffix == ".zip":
            check_md5(part, md5(part), datasets.Omniglot.zips_md5[name])
        return part

    @staticmethod
    def _characters(part: Path) -> Iterator[Character]:
        for name, character in from_arrays(part) if part.suffix == ".npz" else from_pictures(part):
            if character.shape != (DRAWINGS, SIDE, SIDE):
                raise DataError(
                    f"{part}: character {name} has drawings {character.shape}, {DRAWINGS} of {SIDE}x{SIDE} are needed:"
                    " get a fresh copy."
                )
            yield character

    def _known(self, characters: dict[str, Character]) -> dict[str, list[str]]:
        """The listed split, of what is there; nothing may be there that is not listed."""
        split = read_split()
        listed = {name for names in split.values() for name in names}
        unknown, missing = characters.keys() - listed, listed - characters.keys()
        if unknown or (missing and self.strict):
            raise DataError(
                f"{len(unknown)} of the characters are not among Omniglot's {len(listed)}, {len(missing)} are missing:"
                f" the files are damaged or incomplete. {self.where}"
            )
        return {part: [name for name in names if name in characters] for part, names in split.items()}

    def _placed(self, characters: dict[str, Character], names: list[str]) -> Iterator[Placed]:
        for number, name in enumerate(names):
            images = [Image.fromarray(drawing).convert("L") for drawing in characters[name]]
            small = [np.asarray(image.resize((self.size, self.size), Image.Resampling.LANCZOS)) for image in images]
            yield np.arange(number * DRAWINGS, (number + 1) * DRAWINGS), np.stack(small)[:, None]

    @staticmethod
    def _provenance(parts: list[Path]) -> dict[str, str]:
        checksums = {f"sha256 of {part.name}": sha256(part) for part in parts if part.is_file()}
        return {"form": parts[0].suffix or "folders", "path": str(parts[0].parent.resolve()), **checksums}


def from_arrays(path: Path) -> Iterator[tuple[str, Character]]:
    """Characters of an npz file with ``images``, bool ``(characters, 20, 105, 105)``."""
    try:
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            images = arrays["images"]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} has no readable array 'images' ({error}): get a fresh copy.") from error
    yield from ((f"number {i}", character) for i, character in enumerate(images.astype(bool)))


def from_pictures(path: Path) -> Iterator[tuple[str, Character]]:
    """Characters of a zip or folder ``images_*/<alphabet>/<character>/NNNN_MM.png``."""
    drawings: dict[str, list[np.ndarray]] = defaultdict(list)
    source = open_source(path)
    for name, blob in source.read([name for name in source.names() if is_image(name)]):
        drawings[name.rpartition("/")[0]].append(_drawing(name, blob))
    yield from ((name, np.stack(group)) for name, group in drawings.items())


def _drawing(name: str, blob: bytes) -> np.ndarray:
    try:
        with Image.open(BytesIO(blob)) as image:
            if image.size != (SIDE, SIDE):
                raise ValueError(f"it is {image.width}x{image.height}, not {SIDE}x{SIDE}")
            return np.asarray(image.convert("1"))
    except UNDECODABLE as error:
        raise DataError(f"{name} is not an image that can be used: {error}. Get a fresh copy of its archive.") from error


@dataclass(kw_only=True, eq=False)
class Omniglot(EpisodeDataModule):
    """N-way K-shot episodes: 1,200 characters to train, 423 others to test (600 episodes in the paper).

    Args:
        val_characters: how many of the 1,200 to keep for validation; with 0 it is done on the characters trained on.
        size: side of the images.
    """

    val_characters: int = 0
    size: int = 28

    drawings: ClassVar[int] = DRAWINGS

    @property
    def recipe(self) -> OmniglotRecipe:
        return OmniglotRecipe(size=self.size)

    def characters(self, split: str) -> MappedRows:
        """The drawings of the characters of a split, sorted by character."""
        rows = self.prepared.rows("images", "test" if split == "test" else "train")
        held_out, ways = len(rows) - self.val_characters * DRAWINGS, self.plan(split).ways
        if held_out < ways * DRAWINGS or 0 < self.val_characters < self.ways:
            raise DataError(f"val_characters is {self.val_characters}: {ways} ways need at least as many characters.")
        if self.val_characters and split != "test":
            rows = rows[:held_out] if split == "train" else rows[held_out:]
        return self.resident(rows)

    def places(self, split: str) -> np.ndarray:
        return np.arange(len(self.characters(split))).reshape(-1, DRAWINGS)
