"""The classifier behind the features: it learns, and what it exports is what the distance reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.baselines import Classification
from jiio_lightning.data import ImageBatch
from jiio_lightning.metrics.extractors import TrainedFeatures
from jiio_lightning.metrics.features import Features
from tests.conftest import REPO, metrics

RUN = ("--config", REPO / "experiments/runs/digits_features.yaml", "--trainer.enable_progress_bar", "false")


def test_the_shipped_recipe_learns_digits_and_exports_its_features(jiio, caplog):
    assert jiio("fit", *RUN, "--trainer.max_steps", 100, "--trainer.val_check_interval", 100) == 0
    assert float(metrics(Path("runs/digits_features"))[-1]["val/accuracy"]) > 0.95
    extractor = TrainedFeatures("runs/digits_features/features.pt")
    assert extractor.fingerprint in caplog.text
    checkpoint = torch.load("runs/digits_features/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    net = Features((1, 8, 8))
    net.load_state_dict({name.removeprefix("net.features."): t for name, t in checkpoint.items() if ".features." in name})
    image = torch.rand(3, 1, 8, 8)
    assert extractor(image).equal(net.eval()(image).detach()) and extractor.metric == "frechet_digits_cnn64"


def batch(side: int = 8, label: int = 0) -> ImageBatch:
    return ImageBatch(torch.zeros(2, 1, side, side), torch.tensor([0, label]), torch.arange(2))


@pytest.mark.parametrize(
    "given, match", [(batch(side=9), "model.features.image_shape"), (batch(label=5), "model.num_classes above")]
)
def test_data_that_does_not_fit(given, match):
    with pytest.raises(ValueError, match=match):
        Classification(Features((1, 8, 8)), num_classes=5).training_step(given, 0)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match="less than 4 pixels"):
        Features((1, 3, 8))


def test_odd_sides():
    assert Features((3, 7, 9), num_features=5)(torch.zeros(2, 3, 7, 9)).shape == (2, 5)
