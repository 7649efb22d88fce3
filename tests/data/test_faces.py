"""CelebA, FFHQ and image folders in miniature."""

from functools import partial

import pytest
import torch

from jiio_lightning.data import FFHQ, CelebA, DataError, ImageFolder
from jiio_lightning.data.pictures import Frame, decode
from jiio_lightning.data.prepared import prepare
from jiio_lightning.randomness import fixed_permutation


def expected(files: dict[str, bytes], names: list[str], frame: Frame) -> torch.Tensor:
    return torch.stack([torch.tensor(decode(name, files[name], frame)) for name in names])


def stored(data, split: str) -> torch.Tensor:
    return ((data.split_images(split) + 1) * 127.5).round().to(torch.uint8)


def partition(names: list[str], codes: list[int]) -> bytes:
    return "".join(f"{name} {code}\n" for name, code in zip(names, codes, strict=True)).encode()


@pytest.mark.parametrize("crop", [148, 140])
@pytest.mark.parametrize("layout", ["img_align_celeba", "celeba/img_align_celeba", "img_align_celeba.zip"])
def test_celeba_by_its_partition_file(mini, tmp_path, layout, crop):
    pictures = mini.celeba_pictures(20)
    codes = [i % 3 for i in range(20)]
    inside = {f"img_align_celeba/{name}": blob for name, blob in pictures.items()} if ".zip" in layout else pictures
    mini.write(tmp_path / "source" / layout, inside)
    mini.write((tmp_path / "source" / layout).parent, {"list_eval_partition.txt": partition(sorted(pictures), codes)})
    prepared = prepare(CelebA(crop=crop), tmp_path / "source", tmp_path, strict=False)
    assert prepared.folder.name == f"celeba-crop{crop}-64"
    assert prepared.manifest.notes["frame"]["crop"] == crop and not prepared.manifest.strict
    data = CelebA(root=str(tmp_path), crop=crop)
    assert data.image_shape == (3, 64, 64)
    for code, split in enumerate(("train", "val", "test")):
        names = [name for name, c in zip(sorted(pictures), codes, strict=True) if c == code]
        assert stored(data, split).equal(expected(pictures, names, Frame(64, crop)))


@pytest.mark.parametrize("direct", [True, False])
def test_celeba_by_file_order(mini, tmp_path, direct):
    pictures = mini.celeba_pictures(20)
    source = mini.write(tmp_path / "source" / "img_align_celeba", pictures)
    prepare(CelebA(), source if direct else source.parent, tmp_path, strict=False)
    data = CelebA(root=str(tmp_path))
    names = sorted(pictures)
    for split, part in zip(("train", "val", "test"), (names[:16], names[16:18], names[18:]), strict=True):
        assert stored(data, split).equal(expected(pictures, part, Frame(64, 148)))


def test_the_two_crops_are_two_sets(mini, tmp_path):
    source = mini.write(tmp_path / "source", mini.celeba_pictures(8))
    one = prepare(CelebA(), source, tmp_path, strict=False)
    two = prepare(CelebA(crop=140), source, tmp_path, strict=False)
    assert one.folder != two.folder and one.manifest.checksums != two.manifest.checksums


def refused(recipe, source, root, match, strict=True):
    with pytest.raises(DataError, match=match):
        prepare(recipe, source, root, strict)
    assert [path.name for path in root.iterdir()] == [f".{recipe.name}.lock"]


def test_celeba_list_files_that_do_not_fit(mini, tmp_path):
    pictures = mini.celeba_pictures(8)
    mini.write(tmp_path / "source" / "img_align_celeba", pictures)
    loose = partial(refused, CelebA(), tmp_path / "source", tmp_path / "root", strict=False)
    short = partition(sorted(pictures)[:7], [0] * 7)
    mini.write(tmp_path / "source", {"list_eval_partition.txt": short})
    refused(
        CelebA(),
        tmp_path / "source",
        tmp_path / "root",
        r"lists 7 files, there are 8 images; 000008\.jpg is only in one",
        strict=False,
    )
    mini.write(tmp_path / "source", {"list_eval_partition.txt": b"000001.jpg\n"})
    loose(r"line 1 of .*is not a name and 0, 1 or 2")
    mini.write(tmp_path / "source", {"list_eval_partition.txt": partition(sorted(pictures), [0] * 7 + [3])})
    loose(r"line 8 of .*is not a name and 0, 1 or 2")


def test_a_part_of_celeba_and_a_damaged_zip(mini, tmp_path):
    source = mini.write(tmp_path / "a", mini.celeba_pictures(8))
    refused(CelebA(), source, tmp_path / "root", "has 8 images, CelebA has 202599")
    mini.write(tmp_path / "b" / "img_align_celeba.zip", mini.celeba_pictures(8))
    refused(CelebA(), tmp_path / "b", tmp_path / "root", "is not the original's 00d2c5bc")


def test_a_jpeg_cut_in_half(mini, tmp_path):
    pictures = mini.celeba_pictures(8)
    pictures["000003.jpg"] = pictures["000003.jpg"][: len(pictures["000003.jpg"]) // 2]
    refused(
        CelebA(),
        mini.write(tmp_path / "a", pictures),
        tmp_path / "root",
        r"000003\.jpg is not an image that can be used",
        strict=False,
    )


@pytest.mark.parametrize("form", ["images1024x1024", "images1024x1024.zip"])
def test_ffhq_from_numbered_pngs(mini, tmp_path, form):
    pictures = {f"{i // 1000 * 1000:05}/{i:05}.png": mini.picture(i, 96, 96) for i in range(980, 1050)}
    mini.write(tmp_path / "source" / form, {**pictures, "LICENSE.txt": b""})
    for size in (64, 32):
        prepared = prepare(FFHQ(size=size), tmp_path / "source", tmp_path, strict=False)
        assert prepared.folder.name == f"ffhq-{size}" and prepared.manifest.splits == {"train": 59, "val": 1, "test": 10}
        assert stored(FFHQ(root=str(tmp_path), size=size), "train").equal(expected(pictures, sorted(pictures)[:59], Frame(size)))


def test_ffhq_thumbnails_are_not_enlarged(mini, tmp_path):
    source = mini.write(tmp_path / "thumbnails128x128", {f"{i:05}.png": mini.picture(i, 128, 128) for i in range(7)})
    refused(FFHQ(), source, tmp_path / "root", "128x128 pixels are too few", strict=False)
    refused(FFHQ(), source, tmp_path / "root", "7 numbered images, FFHQ has 70000")
    with pytest.raises(DataError, match="ffhq is not downloaded by this program"):
        prepare(FFHQ(), None, tmp_path / "root")


@pytest.fixture
def faces(mini) -> dict[str, bytes]:
    return {f"{i:03}.jpg": mini.picture(i, 80, 72, "JPEG") for i in range(40)}


def test_images_by_count_in_file_order(mini, tmp_path, faces):
    options = {"name": "faces", "size": 64, "train": 30, "val": 4, "shuffle": False}
    prepare(ImageFolder(**options), mini.write(tmp_path / "source" / "x.tar.xz", faces).parent, tmp_path)
    data = ImageFolder(root=str(tmp_path), **options)
    names = sorted(faces)
    for split, part in zip(("train", "val", "test"), (names[:30], names[30:34], names[34:]), strict=True):
        assert stored(data, split).equal(expected(faces, part, Frame(64)))
    assert data.num_classes == 1 and data.image_shape == (3, 64, 64)


def test_images_by_share_in_a_fixed_random_order(mini, tmp_path, faces):
    prepare(ImageFolder(), mini.write(tmp_path / "source", faces), tmp_path)
    data = ImageFolder(root=str(tmp_path))
    names = [sorted(faces)[i] for i in fixed_permutation(40)]
    for split, part in zip(("train", "val", "test"), (names[:36], names[36:38], names[38:]), strict=True):
        assert stored(data, split).equal(expected(faces, part, Frame(64)))


def test_images_by_folder_with_classes(mini, tmp_path, faces):
    places = [f"{split}/{kind}" for split in ("train", "val", "test") for kind in ("cat", "dog")]
    files = {f"{places[i % 6]}/{name}": blob for i, (name, blob) in enumerate(faces.items())}
    prepare(ImageFolder(by_folder=True), mini.write(tmp_path / "source", files), tmp_path)
    data = ImageFolder(root=str(tmp_path), by_folder=True, batch_size=2)
    assert data.num_classes == 2
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        names = sorted(name for name in files if name.startswith(split))
        names = [names[i] for i in fixed_permutation(len(names))]  # a limit is to see both classes
        assert stored(data, split).equal(expected(files, names, Frame(64)))
        assert torch.cat([batch.label for batch in loader]).tolist() == ["dog" in name for name in names]
    refused(
        ImageFolder(name="other", by_folder=True), mini.write(tmp_path / "b", faces), tmp_path / "root", "below a folder called"
    )


def test_images_that_are_too_few(mini, tmp_path, faces):
    source = mini.write(tmp_path / "source", faces)
    refused(ImageFolder(train=41), source, tmp_path / "root", "there are 40 images, fewer than 41 to train")
    refused(ImageFolder(), mini.write(tmp_path / "empty", {"readme.txt": b""}), tmp_path / "root", "holds no images")


def test_another_preparation_is_not_used_unnoticed(mini, tmp_path, faces):
    prepare(ImageFolder(name="faces", size=64), mini.write(tmp_path / "source", faces), tmp_path)
    with pytest.raises(DataError, match="was prepared by .*'size': 64.* asks for .*'size': 32"):
        ImageFolder(root=str(tmp_path), name="faces", size=32).setup()


@pytest.mark.parametrize("named", ["", "Img", "Img/img_align_celeba.zip"])
@pytest.mark.parametrize("kind", ["txt", "csv", "bom"])
def test_celeba_as_its_authors_publish_it(mini, tmp_path, named, kind):
    """Img, Anno and Eval; the partition may have become a table or got a mark of its encoding."""
    pictures = mini.celeba_pictures(9)
    lines = partition(sorted(pictures), [i % 3 for i in range(9)])
    name = "list_eval_partition.csv" if kind == "csv" else "list_eval_partition.txt"
    text = {"txt": lines, "csv": b"image_id,partition\r\n" + lines.replace(b" ", b","), "bom": b"\xef\xbb\xbf" + lines}[kind]
    mini.write(tmp_path / "source" / "Img" / "img_align_celeba.zip", {f"img_align_celeba/{n}": b for n, b in pictures.items()})
    mini.write(
        tmp_path / "source", {f"Eval/{name}": text, "Anno/list_attr_celeba.txt": b"", "Img/Thumbs.db": b"", "README.txt": b""}
    )
    prepare(CelebA(), tmp_path / "source" / named, tmp_path, strict=False)
    data = CelebA(root=str(tmp_path))
    for code, split in enumerate(("train", "val", "test")):
        assert stored(data, split).equal(expected(pictures, sorted(pictures)[code::3], Frame(64, 148)))


def test_celeba_in_one_folder_or_archive_with_its_table(mini, tmp_path):
    pictures = mini.celeba_pictures(6)
    files = {f"img_align_celeba/img_align_celeba/{name}": blob for name, blob in pictures.items()}
    files["list_eval_partition.csv"] = b"image_id,partition\n" + partition(sorted(pictures), [2, 1, 0, 0, 0, 0]).replace(
        b" ", b","
    )
    one, two = (
        prepare(CelebA(), mini.write(tmp_path / form, files), tmp_path / f"root {form}", strict=False).manifest
        for form in ("folder", "archive.zip")
    )
    assert one.checksums == two.checksums and one.splits == {"train": 4, "val": 1, "test": 1}
    again = {**files, "img_align_celeba_png/000001.png": mini.picture(1, 178, 218)}
    refused(CelebA(), mini.write(tmp_path / "x.zip", again), tmp_path / "r", "has images of the same name", strict=False)


def test_a_partition_that_is_not_the_official_one_is_refused_when_strict(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("jiio_lightning.data.celeba.SIZES", {"train": 6, "val": 1, "test": 1})
    pictures = mini.celeba_pictures(8)
    source = mini.write(tmp_path / "source", pictures)
    mini.write(source, {"list_eval_partition.txt": partition(sorted(pictures), [0] * 5 + [1, 0, 2])})
    refused(CelebA(), source, tmp_path / "root", "list_eval_partition.txt is not the official partition")
    mini.write(source, {"list_eval_partition.txt": partition(sorted(pictures), [0] * 6 + [1, 2])})
    assert prepare(CelebA(), source, tmp_path / "root").manifest.splits["train"] == 6


def test_ffhq_numbers_that_come_twice(mini, tmp_path):
    files = {f"{kind}/00000.png": mini.picture(1, 64, 64) for kind in ("images1024x1024", "thumbnails128x128")}
    refused(FFHQ(size=8), mini.write(tmp_path / "x.zip", files), tmp_path / "root", "has some numbers twice", strict=False)
