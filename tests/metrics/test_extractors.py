"""Extractors: their names, and that nothing is loaded whose hash is not the one asked for."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from experiments.baselines import ExportFeatures
from jiio_lightning.metrics.extractors import FORMAT, INCEPTION_SHA256, Inception, TrainedFeatures, as_bytes, checked_hash
from jiio_lightning.metrics.features import Features


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path) -> tuple[Path, Path]:
    """A file that must not be unpickled, and what would be there if it had been."""
    path, sign = tmp_path / "weights.pth", tmp_path / "unpickled"
    path.write_bytes(pickle.dumps(Trap(sign)))
    return path, sign


def export(path: Path, name: str = "tiny_cnn4") -> Features:
    torch.manual_seed(0)
    net = Features((1, 8, 8), num_features=4, channels=(2, 2))
    torch.save({"format": FORMAT, "name": name, "settings": net.settings, "state_dict": net.state_dict()}, path)
    return net.eval()


def test_inception_with_another_hash_is_refused_before_it_is_unpickled(trap):
    path, sign = trap
    for use in (lambda one: one.fingerprint, lambda one: one(torch.zeros(1, 3, 8, 8))):
        with pytest.raises(ValueError, match=f"was not loaded: its SHA-256 is .* not {INCEPTION_SHA256}"):
            use(Inception(str(path)))
    assert not sign.exists()
    pickle.loads(path.read_bytes())
    assert sign.exists(), "the trap works"


def test_features_with_another_hash_are_refused_before_they_are_read(trap, monkeypatch):
    path, sign = trap
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="was not loaded"):
        TrainedFeatures(str(path), sha256="0" * 64)(torch.zeros(1, 1, 8, 8))
    assert not sign.exists()


def test_features_never_unpickle_code(trap):
    path, sign = trap
    with pytest.raises(ValueError, match="cannot be read as features that ExportFeatures wrote"):
        TrainedFeatures(str(path))(torch.zeros(1, 1, 8, 8))
    assert not sign.exists()


def test_inception_takes_the_right_file_and_makes_2048_features(tmp_path, monkeypatch):
    """Its published weights cannot be had here: a file of no tensors, and random ones."""
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, tensors: None)
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **options: tensor)
    extractor = Inception(str(path), sha256=checked_hash(path, None))
    assert extractor(torch.zeros(2, 1, 8, 8)).shape == (2, 2048) and extractor.metric == "fid"
    assert not extractor._net.training


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="get them from https://github.com/toshas"):
        Inception(str(tmp_path / "none.pth"))(torch.zeros(1, 3, 8, 8))
    with pytest.raises(FileNotFoundError, match="experiments/runs/mnist_features.yaml"):
        _ = TrainedFeatures(str(tmp_path / "none.pt")).metric

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match="cannot be downloaded.*no network.*TrainedFeatures"):
        _ = Inception().fingerprint


def test_trained_features_are_those_of_the_net_in_evaluation(tmp_path):
    net = export(tmp_path / "features.pt")
    extractor = TrainedFeatures(str(tmp_path / "features.pt"))
    image = torch.rand(5, 1, 8, 8) * 2 - 1
    assert extractor(image).equal(net(image).detach())
    assert extractor.metric == "frechet_tiny_cnn4"
    assert extractor.fingerprint == hashlib.sha256((tmp_path / "features.pt").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="train an extractor"):
        extractor(torch.zeros(1, 1, 9, 9))


@pytest.mark.parametrize("name", ["fid", "my_fid", "inception_like", "Has-Dash", ""])
def test_no_other_extractor_may_be_called_fid(tmp_path, name):
    with pytest.raises(ValueError, match="would pass for an FID|small letters"):
        ExportFeatures(name)
    export(tmp_path / "features.pt", name)
    with pytest.raises(ValueError, match="would pass for an FID|small letters"):
        _ = TrainedFeatures(str(tmp_path / "features.pt")).metric


def test_something_else_than_features(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "features.pt")
    with pytest.raises(ValueError, match="no features that ExportFeatures wrote"):
        _ = TrainedFeatures(str(tmp_path / "features.pt")).metric


def test_bytes_are_rounded_and_not_cut():
    image = torch.tensor([-1.0, 1.0, 0.0, 0.999, -0.999, 5.0])
    assert as_bytes(image).tolist() == [0, 255, 128, 255, 0, 255]
