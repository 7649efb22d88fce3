"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveInt
from PIL import Image
from torchvision import datasets
from torchvision.datasets.utils import download_url

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.episodes import EpisodeDataModule
from jiio_lightning.data.errors import UNREADABLE_ARRAY, DataError
from jiio_lightning.data.originals import Limits, Originals, sha256
from jiio_lightning.data.pictures import decode, plain
from jiio_lightning.data.recipe import Contents, Shape
from jiio_lightning.data.rows import MappedRows

ORIGINAL_DRAWINGS = "2526369e20e672bac09cef64e86272a648ac3d446daee80a2c18b12112ee71a7"  # see check_drawings
PARTS = ("images_background", "images_evaluation")
SPLIT_FILE = Path(__file__).with_name("omniglot_split.txt")
DRAWINGS, SIDE = 20, 105  # of each character, and the originals' side in pixels

Character = np.ndarray  # bool (20, 105, 105), True is paper


@dataclass(kw_only=True, eq=False)
class Omniglot(EpisodeDataModule):
    """N-way K-shot episodes: 1,200 characters to train, 423 others to test (600 episodes in the paper).

    omniglot_split.txt lists the two. Images are resized by Lanczos, ink is black, as in the released code.

    Args:
        val_characters: how many of the 1,200 to hold out for validation; with 0 it is done on the characters trained on.
        size: side of the images, 28 in the paper.
    """

    val_characters: NonNegativeInt = 0
    size: PositiveInt = 28

    drawings: ClassVar[int] = DRAWINGS
    title, options = "omniglot", ("size",)
    limits = Limits(gigabytes=0.5, megapixels=1)  # 0.21 GB are the larger one of the two parts as an array
    where = WHERE[title]

    @property
    def name(self) -> str:
        return f"omniglot-{self.size}"

    @property
    def shape(self) -> Shape:
        return 1, self.size, self.size

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

    def download(self, folder: Path) -> Path:
        for part, checksum in datasets.Omniglot.zips_md5.items():
            download_url(f"{datasets.Omniglot.download_url_prefix}/{part}.zip", str(folder), f"{part}.zip", checksum)
        return folder

    def read(self, originals: Originals) -> Contents:
        parts = [self._part(originals, name) for name in PARTS]
        # drawings are sorted by their hashes, so that every form of the originals gives the same bytes
        found = (c[np.argsort([drawing_hash(drawing) for drawing in c])] for part in parts for c in read_characters(part))
        characters = {drawing_hash(c[0]): c for c in found}  # by the least hash, as the list of the split names them
        split = self._known(characters, originals.strict)
        if originals.strict and not all(part.path.suffix == ".zip" for part in parts):  # whose checksums have been compared
            check_drawings(characters)
        names = split["train"] + split["test"]
        checksums = {f"sha256 of {part.path.name}": sha256(part.path) for part in parts if part.path.is_file()}
        form = parts[0].path.suffix or "folders"
        return Contents(
            splits={"train": len(split["train"]) * DRAWINGS, "val": 0, "test": len(split["test"]) * DRAWINGS},
            labels=np.arange(len(names)).repeat(DRAWINGS),
            images=(self._resized(characters[name]) for name in names),
            origin=lambda: {
                "form": form,
                "path": str(parts[0].path.parent.resolve()),
                "left_out": dict(sum((Counter(part.found.counts) for part in parts), Counter())),
                **checksums,
            },
            notes={"characters": names, "drawings": DRAWINGS},
        )

    def _part(self, originals: Originals, name: str) -> Originals:
        part = originals.inside(f"{name}.npz", f"{name}.zip", name, f"omniglot-py/{name}.zip", f"omniglot-py/{name}")
        if part is None:
            raise DataError(f"{originals.named} has no {name}.npz or {name}.zip. {self.where}")
        if part.path.suffix == ".zip":
            part.check_md5(part.path, datasets.Omniglot.zips_md5[name])
        return part

    def _known(self, characters: dict[str, Character], strict: bool) -> dict[str, list[str]]:
        """The listed split, of what is there; nothing may be there that is not listed."""
        split = read_split()
        listed = {name for names in split.values() for name in names}
        unknown, missing = characters.keys() - listed, listed - characters.keys()
        if unknown or (missing and strict):
            raise DataError(
                f"{len(unknown)} of the characters are not among Omniglot's {len(listed)}, {len(missing)} are missing:"
                f" the files are damaged or incomplete. {self.where}"
            )
        return {part: [name for name in names if name in characters] for part, names in split.items()}

    def _resized(self, character: Character) -> np.ndarray:
        images = [Image.fromarray(drawing).convert("L") for drawing in character]
        return np.stack([image.resize((self.size, self.size), Image.Resampling.LANCZOS) for image in images])[:, None]


def drawing_hash(drawing: np.ndarray) -> str:
    """What identifies a drawing: its bits."""
    return hashlib.sha256(np.packbits(drawing).tobytes()).hexdigest()[:16]


def check_drawings(characters: dict[str, Character]) -> None:
    """Refuse drawings of which any bit is not the original's."""
    drawings = hashlib.sha256()
    for name in sorted(characters):
        for hashed in sorted(map(drawing_hash, characters[name])):
            drawings.update(hashed.encode())
    if drawings.hexdigest() != ORIGINAL_DRAWINGS:
        raise DataError(
            "some drawings are not the originals': get fresh copies of both parts, or say --strict false to prepare them so."
        )


def read_split() -> dict[str, list[str]]:
    """Meta-training and meta-test characters: each is named by the least hash of its drawings.

    The arrays and the zips have different names and may have another order; the least hash is the same.
    """
    lines = [line.split() for line in SPLIT_FILE.read_text().splitlines() if not line.startswith("#")]
    return {split: [name for kind, name in lines if kind == split] for split in ("train", "test")}


def read_characters(part: Originals) -> Iterator[Character]:
    """The characters of one of the two parts."""
    for name, character in (from_arrays(part) if part.path.suffix == ".npz" else from_pictures(part)).items():
        if character.shape != (DRAWINGS, SIDE, SIDE):
            raise DataError(
                f"{part.path}: character {name} has drawings {character.shape}, {DRAWINGS} of {SIDE}x{SIDE} are needed:"
                " get a fresh copy."
            )
        yield character


def from_arrays(part: Originals) -> dict[str, Character]:
    """Characters of an npz file, which is a zip, with ``images``, bool ``(characters, 20, 105, 105)``."""
    try:
        images = np.load(part.found.files["images.npy"], mmap_mode="r", allow_pickle=False)
        return {f"number {i}": character for i, character in enumerate(images.astype(bool))}
    except UNREADABLE_ARRAY as error:
        raise DataError(f"{part.path} has no readable array 'images' ({error!r}): get a fresh copy.") from error


def from_pictures(part: Originals) -> dict[str, Character]:
    """Characters of a zip or folder ``images_*/<alphabet>/<character>/NNNN_MM.png``."""
    drawings: dict[str, list[np.ndarray]] = defaultdict(list)
    for name in part.images:
        drawings[str(PurePosixPath(name).parent)].append(decode(name, part.read(name), _bits, part.limits.megapixels))
    return {name: np.stack(group) for name, group in drawings.items()}


def _bits(image: Image.Image) -> np.ndarray:
    if image.size != (SIDE, SIDE):
        raise ValueError(f"it is {image.width}x{image.height}, not {SIDE}x{SIDE}")
    return np.asarray(plain(image).convert("L")) > 127
