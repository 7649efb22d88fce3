"""Decoding, cropping and resizing against arithmetic."""

import io

import numpy as np
import pytest
from PIL import Image

from jiio_lightning.data import DataError
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.pictures import Frame, decode, picture_contents, plain


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


def as_file(image: Image.Image, kind: str, **options) -> Image.Image:
    """The same image from a file of some kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = RAMP.astype(np.uint16) * 257


@pytest.mark.parametrize(
    "image",
    [
        as_file(Image.fromarray(DEEP), "PNG"),
        as_file(Image.fromarray(DEEP), "TIFF"),
        as_file(Image.fromarray(DEEP), "PPM"),
        as_file(Image.fromarray(DEEP), "JPEG2000"),
        as_file(Image.fromarray(65535 - DEEP), "TIFF", tiffinfo={262: 0}),  # 0 is white
        Image.fromarray(DEEP.astype(">u2")),
        Image.open(io.BytesIO(b"P5 16 16 4095\n" + np.rint(RAMP * (4095 / 255)).astype(">u2").tobytes())),
        as_file(Image.fromarray(RAMP), "TIFF"),
        Image.fromarray(RAMP),
    ],
    ids=["png", "tiff", "pgm", "jp2", "white is zero", "I;16B", "12 bits", "8 bits", "L"],
)
def test_grey_of_every_depth_keeps_its_greys(image):
    """Neither white nor black, to a level."""
    shown = plain(image)
    assert shown.mode == "L" and np.abs(np.asarray(shown).astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_that_pillow_knows(mode):
    """A light grey is a light grey in each, or it is refused."""
    grey = Image.new("L", (4, 4), 200)
    if mode in ("F", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        image = Image.new(mode, (4, 4), 200 * (257 if ";" in mode else 1))
    elif mode in ("La", "RGBa", "PA"):
        image = Image.merge("LA", (grey, Image.new("L", (4, 4), 255))).convert({"RGBa": "RGBA"}.get(mode, mode)).convert(mode)
    elif mode == "LAB":
        image = Image.new(mode, (4, 4), (205, 128, 128))
    else:
        image = grey.convert("RGB").convert(mode)
    if mode in ("F", "I"):
        with pytest.raises(ValueError, match="nothing says which of its values is white"):
            plain(image)
        return
    shown = plain(image)
    assert shown.mode == ("L" if mode in ("1", "L") or mode.startswith("I") else "RGB")
    if mode != "1":
        assert np.abs(np.asarray(shown.convert("L")).astype(int) - 200).max() <= 4  # a palette has 204


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "PA", "La", "RGBa"])
def test_what_lies_hidden_under_transparency_is_white(mode):
    """A black stroke, in green that is not to be seen."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 1], pixels[2:4, :, 1], pixels[2:4, :, 3] = 255, 0, 255
    image = Image.fromarray(pixels)
    expected = np.where(pixels[..., 3] > 0, 0, 255)
    image = as_file(image.quantize(), "PNG") if mode == "P" else image.convert("LA" if mode == "La" else "RGBA").convert(mode)
    assert np.array_equal(np.asarray(plain(image).convert("L")), expected)
    assert np.array_equal(Frame(8)(image)[1], expected)


@pytest.mark.parametrize("pixels", [RAMP, DEEP, np.stack([RAMP] * 3, -1)], ids=["8 bits", "16 bits", "RGB"])
def test_a_transparent_colour_is_white(pixels):
    colour = pixels[3, 3].tolist()
    image = as_file(Image.fromarray(pixels), "PNG", transparency=colour if isinstance(colour, int) else tuple(colour))
    shown = np.asarray(plain(image).convert("L"))
    expected = RAMP.copy()
    expected[3, 3] = 255
    assert np.array_equal(shown, expected)


def test_a_16_bit_image_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(np.asarray(plain(as_file(Image.fromarray(DEEP), "PNG", exif=exif))), np.rot90(RAMP, -1))


@pytest.mark.parametrize(("place", "bit"), [(1707, 1), (42662, 4), (49658, 1)])
def test_a_png_with_a_flipped_bit_in_its_pixels(mini, place, bit):
    """Three that decoding alone does not see: they are in no place where compression has a rule to break."""
    whole = mini.picture(0, 300, 300)
    with pytest.raises(DataError, match=r"x\.png is not an image that can be used"):
        decode("x.png", whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :], Frame(8))
