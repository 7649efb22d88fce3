"""The Frechet distance of a run: what is compared with what, its name, its reference on disk."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from jiio_lightning.callbacks import FrechetDistance
from jiio_lightning.data import Digits
from jiio_lightning.data.sampler import Draw
from jiio_lightning.metrics.extractors import TrainedFeatures
from jiio_lightning.metrics.frechet import Statistics, bootstrap_deviation, frechet_distance
from jiio_lightning.models.density import Mixture
from tests.conftest import metrics as rows
from tests.metrics.test_extractors import export
from tests.tasks.test_ddp import run

NAME = "test/frechet_tiny_cnn4_reconstruction"
CALLBACKS = [
    {"class_path": "jiio_lightning.callbacks.PredictionWriter"},
    {
        "class_path": "jiio_lightning.callbacks.FrechetDistance",
        "init_args": {
            "extractor": {"class_path": "jiio_lightning.metrics.extractors.TrainedFeatures", "init_args": {"path": "features.pt"}}
        },
    },
]


@pytest.fixture
def command(jiio, checkpoint) -> list[str]:
    """``jiio test`` with the distance over the features of an untrained net."""
    export(Path("features.pt"))
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    config["trainer"]["callbacks"] = CALLBACKS
    Path("frechet.yaml").write_text(yaml.safe_dump(config))
    return ["test", "--config", "frechet.yaml", "--ckpt_path", str(checkpoint)]


@pytest.fixture
def metrics(monkeypatch) -> dict[str, float]:
    """What the last ``test`` has logged."""
    seen: dict[str, float] = {}
    inner = Trainer.test

    @functools.wraps(inner)  # the command line reads its signature
    def watched(self, *args, **kwargs):
        result = inner(self, *args, **kwargs)
        seen.update({name: float(value) for name, value in self.callback_metrics.items()})
        return result

    monkeypatch.setattr(Trainer, "test", watched)
    return seen


def test_it_is_the_distance_of_the_reconstructions_to_the_test_images(jiio, command, metrics, prepared):
    assert jiio(*command) == 0
    assert jiio("predict", *command[1:]) == 0
    extractor = TrainedFeatures("features.pt")
    target = Digits(root=str(prepared)).split_images("test", 20)
    made = torch.from_numpy(np.load("runs/frechet/predictions/predictions.npz")["image"])
    features, truth = extractor(made).numpy(), Statistics.of(extractor(target).numpy())
    wanted = frechet_distance(Statistics.of(features), truth)
    assert metrics[NAME] == pytest.approx(wanted, rel=1e-3)
    half = 1.96 * bootstrap_deviation(features, truth, 20, seed=0)
    assert metrics[f"{NAME}_high"] - metrics[NAME] == pytest.approx(half, rel=1e-2)
    assert metrics[f"{NAME}_low"] == pytest.approx(max(metrics[NAME] - half, 0), rel=1e-2)
    assert not any("fid" in name.lower() or "inception" in name.lower() for name in metrics)


def test_the_reference_is_made_once_and_refused_for_other_weights(jiio, command, metrics, capsys):
    assert jiio(*command) == 0
    (reference,) = Path("runs/references").iterdir()
    assert reference.name == "frechet_tiny_cnn4_digits_test_20.npz"
    before, value = reference.stat().st_mtime_ns, metrics[NAME]
    assert jiio(*command) == 0 and reference.stat().st_mtime_ns == before and metrics[NAME] == value
    contents = torch.load("features.pt", weights_only=True)
    contents["state_dict"]["layers.0.weight"] += 1
    torch.save(contents, "features.pt")
    capsys.readouterr()
    assert jiio(*command) == 1
    error = capsys.readouterr().err
    assert "statistics of something else: weights is" in error and "Remove it" in error and error.count("\n") == 1


def test_a_distance_of_no_more_images_than_features_has_a_remark_and_no_interval(jiio, command, metrics):
    with pytest.warns(UserWarning, match=f"{NAME} is of 4 images and 4 features.* mostly bias and has no interval"):
        assert jiio(*command, "--data.test_limit", "4") == 0
    assert metrics[NAME] > 0 and not any(name.startswith(f"{NAME}_") for name in metrics)


def test_another_number_of_images_has_another_reference(jiio, command):
    assert jiio(*command) == 0 and jiio(*command, "--data.test_limit", "10") == 0
    assert len(list(Path("runs/references").iterdir())) == 2


def test_weights_that_are_not_there_are_one_clear_error(jiio, command, capsys):
    Path("features.pt").unlink()
    assert jiio(*command) == 1
    assert "python -m experiments fit --config experiments/runs/mnist_features.yaml" in capsys.readouterr().err


def test_images_in_other_units_are_refused(jiio, command, capsys):
    assert jiio(*command, "--data.value_range", "[0, 1]") == 1
    assert "images in [-1, 1]" in capsys.readouterr().err


class Copies(Mixture):
    """A density that has its latents again: what is generated are the reconstructions of the training images."""

    def fit(self, latents: torch.Tensor, seed: int) -> Copies:
        self.latents = latents
        return self

    def sample(self, n: int, seed: int) -> torch.Tensor:
        return self.latents[:n]


def test_generations_are_decoded_from_the_density_of_the_latents(built, command, prepared, checkpoint):
    cli = built("--config", "frechet.yaml")
    distance = next(callback for callback in cli.trainer.callbacks if isinstance(callback, FrechetDistance))
    distance.density, distance.latents, distance.generated, distance.batch_size = Copies(), 18, 12, 5
    cli.trainer.test(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
    found = float(cli.trainer.callback_metrics["test/frechet_tiny_cnn4_generation"])
    data = Digits(root=str(prepared), batch_size=12, train_limit=12)
    data.prepare_data()
    image = cli.model.eval().reconstruct(data.dataset("train")[Draw(0, np.arange(12))])
    wanted = frechet_distance(Statistics.of(distance.extractor(image).numpy()), distance._truth)
    assert found == pytest.approx(wanted, rel=1e-3)


def test_a_density_in_the_run_file(jiio, command, metrics):
    config = yaml.safe_load(Path("frechet.yaml").read_text())
    density = {"class_path": f"{Mixture.__module__}.Mixture", "init_args": {"components": 2}}
    config["trainer"]["callbacks"][1]["init_args"] |= {"density": density, "latents": 18, "generated": 30}
    Path("frechet.yaml").write_text(yaml.safe_dump(config))
    assert jiio(*command) == 0
    name = "test/frechet_tiny_cnn4_generation"
    assert 0 <= metrics[f"{name}_low"] < metrics[name] < metrics[f"{name}_high"]


def test_one_resample_has_no_deviation_and_one_image_no_covariance():
    with pytest.raises(ValueError, match="resamples >= 2, or 0"):
        FrechetDistance(TrainedFeatures("features.pt"), resamples=1)
    with pytest.raises(ValueError, match="set generated higher"):
        FrechetDistance(TrainedFeatures("features.pt"), generated=1)


@pytest.mark.slow
def test_two_processes_have_the_distance_of_one(jiio, command, metrics):
    precise = [*command, "--trainer.precision", "64-true", "--data.test_limit", "19", "--data.eval_batch_size", "4"]
    assert jiio(*precise) == 0
    shutil.rmtree("runs/references")
    run([sys.executable, "-m", "jiio_lightning", *precise, "--trainer.devices", "2", "--trainer.strategy", "ddp"])
    shared = rows(Path("runs/frechet"))[-1]
    for name in (NAME, f"{NAME}_low", f"{NAME}_high"):
        assert float(shared[name]) == pytest.approx(metrics[name], rel=1e-4)
