"""Decoding, cropping and resizing against arithmetic."""

import io

import numpy as np
import pytest
from PIL import Image

from jiio_lightning.data import DataError
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.pictures import Frame, decode, picture_contents


def ramp(width: int, height: int) -> Image.Image:
    """An image whose red is the column and whose green is the row."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[..., 0], array[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(array)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_pixels_of_the_right_size_are_kept():
    image = ramp(32, 32)
    assert np.array_equal(Frame(32)(image), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("crop", [148, 140])
def test_the_middle_square_is_cut(crop):
    cut = Frame(crop, crop)(ramp(178, 218))
    left, top = (178 - crop) // 2, (218 - crop) // 2
    assert (cut[0] == np.arange(left, left + crop)).all()
    assert (cut[1] == np.arange(top, top + crop)[:, None]).all()


def test_resizing_averages():
    """Halving with an antialiased bilinear filter keeps a ramp a ramp."""
    small = Frame(32)(ramp(64, 64))
    assert np.abs(small[0][0, 1:-1].astype(float) - (2 * np.arange(1, 31) + 0.5)).max() <= 1


def test_gray_and_palette_images_become_rgb():
    gray = Image.fromarray(np.full((8, 8), 7, np.uint8))
    assert (decode("gray.png", png(gray), Frame(8)) == 7).all()
    assert decode("palette.png", png(ramp(8, 8).convert("P")), Frame(8)).shape == (3, 8, 8)


def test_a_jpeg_cut_in_half_is_one_clear_error(mini):
    blob = mini.picture(0, 178, 218, "JPEG")
    with pytest.raises(DataError, match=r"faces/1\.jpg is not an image that can be used"):
        decode("faces/1.jpg", blob[: len(blob) // 2], Frame(64))


@pytest.mark.parametrize("blob", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_no_image_at_all(blob):
    with pytest.raises(DataError, match="not an image that can be used"):
        decode("x.png", blob, Frame(8))


@pytest.mark.parametrize("frame", [Frame(64), Frame(32, 148)])
def test_too_small_is_not_enlarged(mini, frame):
    with pytest.raises(DataError, match="too few"):
        decode("x.png", mini.picture(0, 48, 60), frame)


def test_each_file_lands_in_its_place(mini, tmp_path):
    """In whatever order the archive has them, over more than one chunk."""
    files = {f"{i:03}.png": mini.picture(i, 8, 8) for i in np.random.default_rng(0).permutation(150)}
    originals = Originals(mini.write(tmp_path / "x.tar", files), tmp_path)
    images = np.concatenate(list(picture_contents(originals, "x", {"train": sorted(files)}, Frame(8)).images))
    assert images.shape == (150, 3, 8, 8) and images.dtype == np.uint8
    assert all((images[i] == mini.pixels(files[f"{i:03}.png"])).all() for i in range(150))


@pytest.mark.parametrize(("classes", "labels"), [(["a", "b"], [1, 0, 1]), ([], [0, 0, 0])])
def test_labels_come_from_folders(tmp_path, classes, labels):
    splits = {"train": ["x/b/1.png"], "val": [], "test": ["a/2.png", "y/b/3.png"]}
    contents = picture_contents(Originals(tmp_path, tmp_path), "x", splits, Frame(8), classes)
    assert contents.labels.tolist() == labels and contents.splits == {"train": 1, "val": 0, "test": 2}


def test_no_images(tmp_path):
    with pytest.raises(DataError, match="no images"):
        picture_contents(Originals(tmp_path, tmp_path), "x", {"train": []}, Frame(8))
