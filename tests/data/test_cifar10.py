"""CIFAR-10 from its binary distribution and from image folders."""

import numpy as np
import pytest
import torch

from jiio_lightning.data import CIFAR10, DataError
from jiio_lightning.data.prepared import prepare
from jiio_lightning.randomness import fixed_permutation


def stored(root) -> tuple[torch.Tensor, list[int]]:
    data = CIFAR10(root=str(root), batch_size=1, value_range=(0.0, 1.0))
    splits = ("train", "val", "test")
    images = torch.cat([data.split_images(split) for split in splits])
    labels = [int(label) for split in splits for label in data.prepared.rows("labels", split).tensor]
    return (images * 255).round().to(torch.uint8), labels


@pytest.mark.parametrize("form", ["folder", "cifar-10-binary.tar.gz"])
def test_binary_records(mini, tmp_path, form):
    files = mini.cifar_binary(count=4)
    prepared = prepare(CIFAR10(), mini.write(tmp_path / "source" / form, files), tmp_path, strict=False)
    assert prepared.manifest.splits == {"train": 18, "val": 2, "test": 4} and prepared.manifest.source["form"] == "binary"
    records = np.concatenate([mini.cifar_records(4, seed) for seed in range(6)])
    order = [*fixed_permutation(20), *range(20, 24)]
    images, labels = stored(tmp_path)
    assert labels == records[order, 0].tolist()
    assert (images.numpy() == records[order, 1:].reshape(-1, 3, 32, 32)).all()


@pytest.mark.parametrize("form", ["folder", "x.tar.xz", "x.zip"])
def test_image_folders(mini, tmp_path, form):
    files = mini.cifar_pictures(train=3, test=1)
    prepared = prepare(CIFAR10(), mini.write(tmp_path / "source" / form, files), tmp_path, strict=False)
    assert prepared.manifest.splits == {"train": 27, "val": 3, "test": 10}
    train, test = (sorted(name for name in files if name.startswith(split)) for split in ("train", "test"))
    order = [train[i] for i in fixed_permutation(30)] + [test[i] for i in fixed_permutation(10)]
    assert [name.split("/")[1] for name in order[30:33]] != ["airplane", "automobile", "bird"]
    images, labels = stored(tmp_path)
    assert [mini.CLASSES[label] for label in labels] == [name.split("/")[1] for name in order]
    assert all((image.numpy() == mini.pixels(files[name])).all() for image, name in zip(images, order, strict=True))


def test_jpegs_below_another_folder(mini, tmp_path):
    files = {f"cifar/./{name}": blob for name, blob in mini.cifar_pictures(1, 1, "JPEG").items()}
    files["cifar/readme.txt"] = b"no image"
    assert prepare(CIFAR10(), mini.write(tmp_path / "x.tar", files), tmp_path, strict=False).manifest.splits["test"] == 10


def refused(mini, tmp_path, name, files, match, strict=False):
    with pytest.raises(DataError, match=match):
        prepare(CIFAR10(), mini.write(tmp_path / "source" / name, files), tmp_path / "root", strict)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".cifar10.lock"]


def test_pickles_are_refused_unread(mini, tmp_path):
    files = {f"cifar-10-batches-py/{name}": b"cos\nsystem\n." for name in ("data_batch_1", "test_batch")}
    refused(mini, tmp_path, "cifar-10-python.tar.gz", files, "holds pickles.*Name cifar-10-binary.tar.gz")


def test_a_wrong_checksum(mini, tmp_path):
    refused(mini, tmp_path, "cifar-10-binary.tar.gz", mini.cifar_binary(), "is not the original's c32a1d4a", strict=True)
    refused(mini, tmp_path, "folder", mini.cifar_binary(), "name it instead", strict=True)


def test_a_part_of_the_images(mini, tmp_path):
    refused(mini, tmp_path, "x", mini.cifar_pictures(), r"30 \+ 10 images, CIFAR-10 has 50000 \+ 10000", strict=True)


def test_a_shortened_batch(mini, tmp_path):
    files = mini.cifar_binary()
    files["cifar-10-batches-bin/data_batch_3.bin"] = files["cifar-10-batches-bin/data_batch_3.bin"][:-1]
    refused(mini, tmp_path, "x.tar.gz", files, r"data_batch_3\.bin has 12291 bytes, not a multiple of 3073")


def test_a_label_that_is_no_class(mini, tmp_path):
    files = mini.cifar_binary()
    files["cifar-10-batches-bin/test_batch.bin"] = b"\x0b" + files["cifar-10-batches-bin/test_batch.bin"][1:]
    refused(mini, tmp_path, "x.tar.gz", files, "a label is 11")


def test_unknown_classes_and_missing_parts(mini, tmp_path):
    pictures = mini.cifar_pictures()
    refused(mini, tmp_path, "a", {**pictures, "train/zebra/1.png": pictures["train/cat/0000.png"]}, "unknown classes zebra")
    train = {name: blob for name, blob in pictures.items() if name.startswith("train")}
    refused(mini, tmp_path, "b", train, "no images in one of the two")


def test_a_jpeg_cut_in_half(mini, tmp_path):
    files = mini.cifar_pictures(kind="JPEG")
    files["train/cat/0000.jpeg"] = files["train/cat/0000.jpeg"][: len(files["train/cat/0000.jpeg"]) // 2]
    refused(mini, tmp_path, "x.tar", files, r"train/cat/0000\.jpeg is not an image that can be used")
