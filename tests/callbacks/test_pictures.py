"""What the pictures show, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio_lightning.callbacks.image_grid import picture
from jiio_lightning.data import Digits


def tiles(path: Path, side: int, columns: int, rows: int) -> np.ndarray:
    """The images of a grid ``(rows, columns, side, side)`` in [-1, 1]."""
    grid = np.asarray(Image.open(path).convert("L")).astype(float) / 127.5 - 1
    step = side + 2
    return np.stack([[grid[2 + r * step :, 2 + c * step :][:side, :side] for c in range(columns)] for r in range(rows)])


def test_enlarged_images_side_by_side():
    images = torch.linspace(-1, 1, 3 * 4).view(3, 1, 2, 2)
    made = picture(images, columns=2, enlarge=3)
    assert made.shape == (3, 2 * 8 + 2, 2 * 8 + 2) and made.min() >= 0 and made.max() <= 1
    corner = made[0, 10:16, 2:8].view(2, 3, 2, 3)  # the third image: second row, first column
    assert torch.allclose(corner.permute(0, 2, 1, 3), ((images[2, 0] + 1) / 2).view(2, 2, 1, 1).expand(2, 2, 3, 3))


def test_targets_above_reconstructions(jiio, checkpoint, prepared):
    """The upper row is the data; the lower one is what ``jiio predict`` writes."""
    for command in ("test", "predict"):
        assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 0
    shown = tiles(Path("runs/tiny/images/test.png"), side=8, columns=4, rows=2)
    target = Digits(root=str(prepared)).split_images("test", 4)[:, 0].numpy()
    made = np.load("runs/tiny/predictions/predictions.npz")["image"][:4, 0]
    assert abs(shown[0] - target).max() < 0.01
    assert abs(shown[1] - made).max() < 0.01
    assert abs(shown[0] - shown[1]).max() > 0.1
    large = tiles(Path("runs/tiny/predictions/images.png"), side=32, columns=4, rows=1)[0]
    assert abs(large[:, ::4, ::4] - made).max() < 0.01


@pytest.mark.parametrize("count", [3, 100])
def test_the_grid_takes_what_there_is(jiio, checkpoint, count):
    grid = "--trainer.callbacks=[{class_path: jiio_lightning.callbacks.ImageGrid, init_args: {count: %d, enlarge: 1}}]"
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", checkpoint, grid % count) == 0
    assert Image.open("runs/tiny/images/test.png").size[0] == 10 * min(count, 8) + 2
