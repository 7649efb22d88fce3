"""The loader's benchmark: it measures images of one and of three channels, and what preparation is for."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks.loader import loader
from jiio_lightning.data import Digits, ImageFolder


def faces(root: Path, source: Path, **options: int) -> None:
    ImageFolder(root=str(root), source=str(source), name="faces", shuffle=False, **options).prepare_data()


def test_rates_of_grey_and_of_coloured_images(tmp_path):
    (tmp_path / "faces").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{number:02}.png")
    faces(tmp_path / "root", tmp_path / "faces")
    Digits(root=str(tmp_path / "root")).prepare_data()
    for name, size in (("digits", 64), ("faces", 3 * 64 * 64)):
        rows = loader(name, str(tmp_path / "root"), batch_size=4, epochs=1)
        assert [row["what"] for row in rows[:2]] == ["loader, prepared", "decoding JPEGs, 0 workers"] and len(rows) == 6
        assert rows[0]["gb_per_second"] == pytest.approx(rows[0]["images_per_second"] * 4 * size / 1e9)


@pytest.mark.slow
def test_loading_faces_is_ten_times_faster_than_decoding(tmp_path):
    if "JIIO_SHARED_DATA" not in os.environ:
        pytest.skip("JIIO_SHARED_DATA does not say where the real data are")
    faces(tmp_path, Path(os.environ["JIIO_SHARED_DATA"]) / "faces64" / "faces64.tar.xz", train=19_000, val=1_000)
    prepared, *decoding = (row["images_per_second"] for row in loader("faces", str(tmp_path))[:3])
    assert prepared >= 10 * max(decoding)
