"""CelebA: 202,599 aligned photographs of faces, 178x218."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from torchvision import datasets
from torchvision.datasets.utils import download_file_from_google_drive

from jiio_lightning.data.errors import DataError
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.pictures import Frame, picture_contents
from jiio_lightning.data.recipe import Contents, Recipe, Shape
from jiio_lightning.data.sources import check_md5, is_image, locate, md5, open_source, reading

PARTITION = "list_eval_partition.txt"
PLACES = ("img_align_celeba.zip", "img_align_celeba", "celeba/img_align_celeba.zip", "celeba/img_align_celeba")
SIZES = {"train": 162_770, "val": 19_867, "test": 19_962}  # of the official partition, which is in file order
MD5 = {name: checksum for _, checksum, name in datasets.CelebA.file_list}


@dataclass(frozen=True, kw_only=True)
class CelebARecipe(Recipe):
    """Prepare CelebA by the official partition: its file where it is at hand, else the same by file order.

    Args:
        crop: side of the square that is cut from the middle: 148 in the released JIIO code, 140 in the RAE paper's.
            FIDs compare only within one crop.
        size: side of the prepared images.
    """

    crop: int = 148
    size: int = 64

    title: ClassVar[str] = "celeba"
    where: ClassVar[str] = (
        f"Name the folder that holds img_align_celeba.zip (or the extracted img_align_celeba) and, if you have it, {PARTITION}."
    )

    @property
    def name(self) -> str:
        return f"celeba-crop{self.crop}-{self.size}"

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    def download(self, folder: Path) -> Path:
        """Torchvision's download from Google Drive, of the two files that are needed; it has daily quotas."""
        with self.downloading():
            for file_id, checksum, name in datasets.CelebA.file_list:
                if name in (PARTITION, "img_align_celeba.zip"):
                    download_file_from_google_drive(file_id, str(folder), name, checksum)
        return folder

    def read(self, source: Path) -> Contents:
        images = (locate(source, *PLACES) if source.is_dir() else None) or source
        if self.strict and images.suffix == ".zip":
            check_md5(images, md5(images), MD5["img_align_celeba.zip"])
        opened = open_source(images)
        names = sorted((name for name in opened.names() if is_image(name)), key=lambda name: PurePosixPath(name).name)
        if self.strict and len(names) != sum(SIZES.values()):
            raise DataError(
                f"{images} has {len(names)} images, CelebA has {sum(SIZES.values())}: get the rest, or say"
                " --strict false to prepare what is there."
            )
        partition = locate(source if source.is_dir() else source.parent, PARTITION, f"celeba/{PARTITION}", f"../{PARTITION}")
        splits = self._by_order(names) if partition is None else self._by_file(names, partition)
        return picture_contents(opened, "aligned images", splits, Frame(self.size, self.crop))

    def _by_file(self, names: list[str], partition: Path) -> dict[str, list[str]]:
        if self.strict:
            check_md5(partition, md5(partition), MD5[PARTITION])
        lines = read_partition(partition)
        bare = [PurePosixPath(name).name for name in names]
        if set(lines) != set(bare):
            differing = sorted(set(lines) ^ set(bare))
            raise DataError(
                f"{partition} lists {len(lines)} files, there are {len(names)} images; {differing[0]} is only in one"
                " of the two. Get the list that belongs to the images, or remove it to split them by file order."
            )
        return {
            split: [name for name, file in zip(names, bare, strict=True) if lines[file] == code]
            for code, split in zip("012", SIZES, strict=True)
        }

    @staticmethod
    def _by_order(names: list[str]) -> dict[str, list[str]]:
        """The official sizes; of a part of the set, the same shares."""
        val, test = (round(len(names) * SIZES[split] / sum(SIZES.values())) for split in ("val", "test"))
        train = len(names) - val - test
        return {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}


def read_partition(path: Path) -> dict[str, str]:
    """Lines of a name and ``0``, ``1`` or ``2`` for train, val and test."""
    with reading(path):
        lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or line[1] not in ("0", "1", "2"):
            raise DataError(f"line {number} of {path} is not a name and 0, 1 or 2: get a fresh copy.")
    return {name: code for name, code in lines}


@dataclass(kw_only=True, eq=False)
class CelebA(ImageDataModule):
    """CelebA faces: 162,770 to train, 19,867 to validate, 19,962 to test (the official partition).

    Args:
        crop: side of the square that was cut from the middle, 148 or 140; part of the prepared set's name.
        size: side of the images.
    """

    crop: int = 148
    size: int = 64

    @property
    def recipe(self) -> CelebARecipe:
        return CelebARecipe(crop=self.crop, size=self.size)
