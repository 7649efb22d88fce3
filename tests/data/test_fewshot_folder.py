"""A user's folder as an episode: the pixels, the order, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from jiio_lightning.data import DataError, FewShotFolder
from jiio_lightning.data.fewshot_folder import Sheet

NAMES = ("apple", "bee", "cat")


def drawing(seed: int, side: int = 20) -> np.ndarray:
    """Dark strokes on white paper."""
    return np.where(np.random.default_rng(seed).random((side, side)) < 0.8, 255, 0).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path) -> Path:
    """``support`` with 3 classes of 2 images, ``query`` with 4."""
    for place, name in enumerate(NAMES):
        for k, suffix in enumerate(("png", "bmp")):
            save(tmp_path / "support" / name / f"{k}.{suffix}", drawing(2 * place + k))
    for k in range(4):
        save(tmp_path / "query" / f"q{k}.gif", drawing(100 + k))
    return tmp_path


def folder(path: Path, shape: tuple[int, int, int] = (1, 20, 20), classes: int | None = 3, **options) -> FewShotFolder:
    data = FewShotFolder(support=str(path / "support"), query=str(path / "query"), **options)
    net = SimpleNamespace(image_shape=shape, num_classes=classes)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(net=net))
    return data


def opened(*args, **options) -> FewShotFolder:
    data = folder(*args, **options)
    data.setup("predict")
    return data


@pytest.mark.parametrize(("invert", "value_range"), [(False, (0.0, 1.0)), (True, (-1.0, 0.0))])
def test_the_pixels_in_the_order_of_the_names(folders, invert, value_range):
    for name in ("query/.hidden", "query/Thumbs.db", "support/desktop.ini", "support/bee/Thumbs.db"):
        (folders / name).write_text("not an image")
    data = opened(folders, invert=invert, value_range=value_range)
    (batch,) = data.predict_dataloader()
    assert data.classes == NAMES and data.files == ("q0.gif", "q1.gif", "q2.gif", "q3.gif")
    assert batch.support_label.tolist() == [[0, 0, 1, 1, 2, 2]] and batch.query_label.tolist() == [[-1] * 4]
    low, high = value_range
    for images, seeds in ((batch.support, range(6)), (batch.query, range(100, 104))):
        light = torch.stack([torch.from_numpy(drawing(seed)) / 255 for seed in seeds])[None, :, None]
        torch.testing.assert_close(images, low + (high - low) * (1 - light if invert else light))


def test_an_omniglot_drawing_is_what_its_preparation_makes_of_it():
    image = Image.fromarray(drawing(0, 105) > 0)
    prepared = np.asarray(image.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    assert np.array_equal(Sheet(28)(image)[0], prepared)


def test_paper_goes_on_beside_an_image_that_is_no_square():
    pixels = np.full((10, 20), 200, np.uint8)
    pixels[4:6, 5:15] = 30
    sheet = Sheet(20)(Image.fromarray(pixels))[0]
    assert (sheet[:5] == 200).all() and (sheet[-5:] == 200).all() and np.array_equal(sheet[5:15], pixels)
    assert np.array_equal(Sheet(20, invert=True)(Image.fromarray(pixels))[0], 255 - sheet)


def test_what_is_transparent_is_paper():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:4, 2:4, 3] = 255
    assert np.array_equal(Sheet(8)(Image.fromarray(pixels))[0], 255 - pixels[..., 3])


def test_one_class_and_one_image_are_an_episode(tmp_path):
    save(tmp_path / "support" / "only" / "a.png", drawing(0))
    save(tmp_path / "query" / "b.png", drawing(1))
    data = opened(tmp_path, classes=None)
    assert data.episode.support.shape == data.episode.query.shape == (1, 1, 1, 20, 20)


def empty_class(path: Path) -> None:
    (path / "support" / "dog").mkdir()


def mixed(path: Path) -> None:
    (path / "support" / "bee" / "1.bmp").unlink()


def fourth(path: Path) -> None:
    for k in range(2):
        save(path / "support" / "dog" / f"{k}.png", drawing(k))


def unreadable(path: Path) -> None:
    (path / "query" / "q9.txt").write_text("text")


def deep(path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.float32)).save(path / "query" / "q9.tif")


def stray(path: Path) -> None:
    save(path / "support" / "x.png", drawing(0))


def nested(path: Path) -> None:
    (path / "query" / "more").mkdir()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (empty_class, "dog is empty"),
        (mixed, r"\(apple 2, bee 1, cat 2\): make them equal"),
        (fourth, "has 4 classes, the net tells 3 apart: give it 3 folders, or use a net trained with --data.ways 4"),
        (unreadable, "q9.txt is not an image"),
        (deep, "q9.tif is not an image that can be used: nothing says which of its values is white"),
        (stray, "x.png lies in no class"),
        (nested, "holds the folder more"),
    ],
)
def test_a_folder_that_is_no_episode(folders, spoil, match):
    spoil(folders)
    with pytest.raises(DataError, match=match):
        opened(folders)


def test_no_folder_and_no_net_for_it(folders, tmp_path):
    with pytest.raises(DataError, match=r"data.query is .*nowhere, which is no folder: name one with --data.query"):
        data = folder(folders)
        data.query = str(tmp_path / "nowhere")
        data.setup("predict")
    with pytest.raises(DataError, match="data.support is None, which is no folder"):
        data = folder(folders)
        data.support = None
        data.setup("predict")
    with pytest.raises(DataError, match="3x20x20; a FewShotFolder has grey squares"):
        opened(folders, shape=(3, 20, 20))
    with pytest.raises(DataError, match="has no net of few-shot learning"):
        data = folder(folders)
        data.trainer.lightning_module.net = None
        data.setup("predict")
    with pytest.raises(DataError, match="it is for `jiio predict`"):
        folder(folders).setup("test")


def test_16_bits_and_a_folder_below_a_hidden_one(folders):
    pixels = drawing(100).astype(np.uint16) * 257
    save(folders / ".cache" / "query" / "q.png", pixels)
    data = folder(folders)
    data.query = str(folders / ".cache" / "query")
    data.setup("predict")
    assert data.episode.query.equal(torch.from_numpy(drawing(100) / 255).float()[None, None, None])
