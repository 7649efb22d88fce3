"""The distance against closed forms, and references that are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from jiio_lightning.metrics.frechet import Statistics, bootstrap_deviation, frechet_distance

WHAT = {"metric": "frechet_x", "weights": "ab", "data": "cd", "split": "test", "count": 9, "image_shape": [1, 8, 8]}


def gaussian(mean: list[float], covariance: list[list[float]]) -> Statistics:
    return Statistics(np.array(mean), np.array(covariance), 100)


def test_one_dimension_is_its_closed_form():
    """(m1 - m2)^2 + (s1 - s2)^2."""
    assert frechet_distance(gaussian([1.0], [[4.0]]), gaussian([3.0], [[9.0]])) == pytest.approx(4 + 1)


def test_covariances_that_do_not_commute():
    """tr sqrt(C1 C2) of 2x2 matrices is sqrt(tr C1 C2 + 2 sqrt(det C1 C2))."""
    one, other = [[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]]
    product = np.array(one) @ np.array(other)
    root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    wanted = 0.25 + 3.0 + 4.0 - 2 * root
    assert frechet_distance(gaussian([0.0, 0.0], one), gaussian([0.5, 0.0], other)) == pytest.approx(wanted)


def test_samples_agree_with_torchmetrics():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(200, 6)), random.normal(1.0, 2.0, size=(150, 6))
    features = torch.nn.Identity()
    features.num_features = 6
    judge = FrechetInceptionDistance(features, normalize=True)
    judge.update(torch.from_numpy(one), real=True)
    judge.update(torch.from_numpy(other), real=False)
    assert frechet_distance(Statistics.of(one), Statistics.of(other)) == pytest.approx(float(judge.compute()), rel=1e-5)


def test_the_deviation_is_that_of_new_samples():
    """Of N images around (1, 1) against N(0, 1): the distance moves by 2 dm, so that its variance is 2 * 4 / N.

    400 resamples know a deviation to 1 / sqrt(800), of which three are allowed.
    """
    features = np.random.default_rng(1).normal(1.0, 1.0, size=(10_000, 2))
    features = 1 + (features - features.mean(axis=0)) / features.std(axis=0)  # the mean and variance that they stand for
    reference = Statistics(np.zeros(2), np.eye(2), 10_000)
    found = bootstrap_deviation(features, reference, 400, seed=0)
    assert found == pytest.approx(math.sqrt(8 / 10_000), rel=3 / math.sqrt(800))
    few = [bootstrap_deviation(features[:50], reference, 5, seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


@pytest.mark.parametrize("features, match", [(np.zeros((1, 3)), "at least two"), (np.full((4, 3), np.nan), "finite")])
def test_features_without_a_gaussian(features, match):
    with pytest.raises(ValueError, match=match):
        Statistics.of(features)


def test_features_of_different_extractors():
    with pytest.raises(ValueError, match="one extractor"):
        frechet_distance(gaussian([0.0], [[1.0]]), gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]))


def test_a_reference_comes_back(tmp_path):
    made = Statistics.of(np.random.default_rng(0).normal(size=(9, 4)))
    made.save(tmp_path / "new" / "r.npz", WHAT)
    found = Statistics.load(tmp_path / "new" / "r.npz", WHAT)
    assert np.array_equal(found.mean, made.mean) and np.array_equal(found.covariance, made.covariance) and found.count == 9
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.npz"]


@pytest.mark.parametrize(
    "key, value", [("weights", "ef"), ("data", "xy"), ("split", "val"), ("count", 8), ("image_shape", [1, 9, 9])]
)
def test_a_stale_reference_is_refused(tmp_path, key, value):
    Statistics.of(np.eye(3)).save(tmp_path / "r.npz", WHAT)
    with pytest.raises(ValueError, match=f"something else: {key} is .* wanted"):
        Statistics.load(tmp_path / "r.npz", {**WHAT, key: value})


def test_a_reference_that_was_cut_off_or_pickled_is_refused(tmp_path):
    path = tmp_path / "r.npz"
    Statistics.of(np.eye(3)).save(path, WHAT)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="remove it"):
        Statistics.load(path, WHAT)
    np.savez(path, mean=np.array([object()]), covariance=0, count=0, key=np.array("{}"))
    with pytest.raises(ValueError, match="remove it"):
        Statistics.load(path, WHAT)
