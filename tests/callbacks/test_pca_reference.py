"""PCA stands beside the error of the same images, however they come in batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from jiio_lightning.data import Digits
from jiio_lightning.metrics.pca import pca_error
from tests.conftest import metrics


@pytest.mark.parametrize(
    "options, images",
    [((), 20), (("--data.eval_batch_size", 7), 20), (("--trainer.limit_test_batches", 2), 16)],
    ids=["three batches", "a smaller last batch", "some of the batches"],
)
def test_the_same_images(jiio, checkpoint, prepared, options, images):
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *options) == 0
    (row,) = metrics(Path("runs/tiny"))
    data = Digits(root=str(prepared), train_limit=18)
    wanted = pca_error(data.split_images("train"), data.split_images("test", images), components=4)
    assert float(row["test/pca_error"]) == pytest.approx(wanted, rel=1e-5)
    assert float(row["test/error_over_pca"]) == pytest.approx(float(row["test/error"]) / wanted, rel=1e-5)
