"""What ``jiio data`` prepares, where it lives, and the manifest of a set: all that a list of them needs, without torch."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jiio_lightning.data.errors import DataError, printable
from jiio_lightning.data.found import in_words

WHERE = {
    "digits": "",
    "mnist": "Name a folder with the four original files, such as train-images-idx3-ubyte.gz.",
    "cifar10": "Name cifar-10-binary.tar.gz, or a folder or archive with train/<class>/* and test/<class>/*.",
    "omniglot": "Name the folder with images_background and images_evaluation, both as .zip or both as .npz.",
    "celeba": (
        "Name the folder that holds img_align_celeba.zip (or the extracted img_align_celeba) and, if you have it,"
        " list_eval_partition.txt."
    ),
    "ffhq": "Name the folder or zip of images1024x1024 (or of thumbnails128x128, for 128 and 64).",
    "images": "Name a folder or an archive of JPEG or PNG files.",
}
"""Where a user gets the originals of each set; empty: nothing is needed."""
MANIFEST = "manifest.json"
Shape = tuple[int, int, int]  # channels, height, width


def data_root(root: str | None) -> Path:
    """Where prepared sets live: ``root``, or the environment variable JIIO_DATA, or ``data``."""
    return Path(root or os.environ.get("JIIO_DATA", "data")).expanduser()


@dataclass(frozen=True)
class Manifest:
    """What a prepared set is, and the checksum of that. Written last: a folder without one is not a prepared set."""

    name: str
    recipe: dict[str, Any]  # set, version and options: what was done
    strict: bool  # whether the source was the original
    source: dict[str, Any]  # to what it was done: path, checksum, form
    shape: Shape  # of one image
    levels: int  # value of a full pixel
    splits: dict[str, int]  # number of samples, in the order in which they are stored
    checksums: dict[str, str]  # SHA-256 of each array file
    notes: dict[str, Any]  # what else the recipe has to say, such as the names of classes
    versions: dict[str, str]  # of the libraries that decoded and resized

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        try:
            fields = json.loads((folder / MANIFEST).read_text())
            checksum = fields.pop("checksum")
            manifest = cls(**{**fields, "shape": tuple(fields["shape"])})
            if checksum != manifest.checksum:
                raise ValueError("its checksum is wrong")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{folder} is not a prepared set: {MANIFEST} cannot be used ({error!r}). Remove the folder and prepare it again."
            ) from error
        return manifest

    @property
    def checksum(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def summary(self) -> str:
        """Shape, splits, where it came from and what was left out of that, in one line."""
        splits = ", ".join(f"{count} {split}" for split, count in self.splits.items() if count)
        path, left_out = self.source.get("path", ""), self.source.get("left_out")
        return printable(
            f"{'x'.join(map(str, self.shape))}: {splits}; from {self.source['form']} {path}"
            f"{'' if self.strict else ' (not strict)'}{'' if left_out is None else f'; left out: {in_words(left_out)}'}"
        )

    def bounds(self, split: str) -> tuple[int, int]:
        """Rows of a split: start and stop."""
        if split not in self.splits:
            raise DataError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}.")
        names = list(self.splits)
        start = sum(self.splits[name] for name in names[: names.index(split)])
        return start, start + self.splits[split]
