"""CelebA: 202,599 aligned photographs of faces, 178x218."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jsonargparse.typing import PositiveInt
from torchvision import datasets
from torchvision.datasets.utils import download_file_from_google_drive

from jiio_lightning.data.catalogue import WHERE
from jiio_lightning.data.errors import DataError, reading
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.pictures import Frame, picture_contents
from jiio_lightning.data.recipe import Contents, Shape

PARTITION = "list_eval_partition.txt"
PARTITIONS = (PARTITION, PARTITION.replace(".txt", ".csv"))
PLACES = [
    f"{folder}{name}"
    for folder in ("", "Img/", "celeba/", "CelebA/Img/")
    for name in ("img_align_celeba.zip", "img_align_celeba")
]
SIZES = {"train": 162_770, "val": 19_867, "test": 19_962}  # of the official partition, which is in file order
MD5 = {name: checksum for _, checksum, name in datasets.CelebA.file_list}


@dataclass(kw_only=True, eq=False)
class CelebA(ImageDataModule):
    """CelebA faces: 162,770 to train, 19,867 to validate, 19,962 to test.

    The official partition, by its file where it is at hand, else the same by file order.

    Args:
        crop: side of the square that is cut from the middle: 148 in the released JIIO code, 140 in the RAE paper's.
            FIDs compare only within one crop.
        size: side of the images.
    """

    crop: PositiveInt = 148
    size: PositiveInt = 64

    title, options = "celeba", ("crop", "size")
    limits = Limits(gigabytes=4, megapixels=1)
    where = WHERE[title]

    @property
    def name(self) -> str:
        return f"celeba-crop{self.crop}-{self.size}"

    @property
    def shape(self) -> Shape:
        return 3, self.size, self.size

    def download(self, folder: Path) -> Path:
        """Torchvision's download from Google Drive, of the two files that are needed; it has daily quotas."""
        for file_id, checksum, name in datasets.CelebA.file_list:
            if name in (PARTITION, "img_align_celeba.zip"):
                download_file_from_google_drive(file_id, str(folder), name, checksum)
        return folder

    def read(self, originals: Originals) -> Contents:
        pictures = originals.inside(*PLACES) or originals
        if pictures.path.suffix == ".zip":
            pictures.check_md5(pictures.path, MD5["img_align_celeba.zip"])
        # the official order is by file name, in whichever folders the files lie
        names = sorted(pictures.images, key=lambda name: PurePosixPath(name).name)
        if len({PurePosixPath(name).stem for name in names}) < len(names):
            raise DataError(f"{pictures.path} has images of the same name: name the folder img_align_celeba alone.")
        if originals.strict and len(names) != sum(SIZES.values()):
            raise DataError(
                f"{pictures.path} has {len(names)} images, CelebA has {sum(SIZES.values())}: get the rest, or say"
                " --strict false to prepare what is there."
            )
        partition = self._partition(originals, pictures)
        splits = by_order(names) if partition is None else by_file(names, partition)
        if originals.strict and splits != by_order(names):
            raise DataError(f"{partition} is not the official partition. Get a fresh copy, or say --strict false to use it.")
        return picture_contents(pictures, "aligned images", splits, Frame(self.size, self.crop))

    def _partition(self, originals: Originals, pictures: Originals) -> Path | None:
        """The list of the splits, among the images, beside them, or in the Eval that belongs to their Img."""
        for name in pictures.names:
            if PurePosixPath(name).name in PARTITIONS:
                pictures.found.left_out.pop(name, None)
                return pictures.found.files[name]
        folder = originals.named if originals.named.is_dir() else originals.named.parent
        near = (base / sub for base in (folder, *folder.parents[:2]) for sub in ("", "Eval", "celeba", "CelebA/Eval"))
        return next((place / name for place in near for name in PARTITIONS if (place / name).is_file()), None)


def by_order(names: list[str]) -> dict[str, list[str]]:
    """The official sizes; of a part of the set, the same shares."""
    val, test = (round(len(names) * SIZES[split] / sum(SIZES.values())) for split in ("val", "test"))
    train = len(names) - val - test
    return {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}


def by_file(names: list[str], partition: Path) -> dict[str, list[str]]:
    """By lines of a file name and ``0``, ``1`` or ``2`` for train, val and test, as .csv below a line of headings."""
    with reading(partition):
        text = partition.read_text(encoding="utf-8-sig", errors="replace")
    lines = [(number, line.replace(",", " ").split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and lines[0][1][-1:] == ["partition"]:
        del lines[0]
    for number, line in lines:
        if len(line) != 2 or line[1] not in ("0", "1", "2"):
            raise DataError(f"line {number} of {partition} is not a name and 0, 1 or 2: get a fresh copy.")
    # without suffixes: the list has .jpg, the images may be the authors' .png
    listed = {PurePosixPath(name).stem: (name, code) for _, (name, code) in lines}
    by_name = {PurePosixPath(name).stem: name for name in names}
    if len(listed) < len(lines):
        raise DataError(f"{partition} lists some files twice: get a fresh copy.")
    if differing := sorted(listed.keys() ^ by_name.keys()):
        one = by_name.get(differing[0]) or listed[differing[0]][0]
        raise DataError(
            f"{partition} lists {len(listed)} files, there are {len(names)} images; {one} is only in one"
            " of the two. Get the list that belongs to the images, or remove it to split them by file order."
        )
    return {
        split: [name for file, name in by_name.items() if listed[file][1] == code]
        for code, split in zip("012", SIZES, strict=True)
    }
