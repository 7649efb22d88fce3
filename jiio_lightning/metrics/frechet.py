"""The Frechet distance of two sets of images over named features (Heusel et al. 2017), and its reference on disk."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jiio_lightning.files import whole_file

Key = dict[str, Any]
"""All that a set of features is a function of, as plain data."""


@dataclass(frozen=True)
class Statistics:
    """The Gaussian that stands for a set of images."""

    mean: np.ndarray  # of the features (F,), float64
    covariance: np.ndarray  # of the features (F, F), unbiased, float64
    count: int  # of the images

    @property
    def singular(self) -> bool:
        """Whether the covariance of so few images cannot have full rank: it is not that of their distribution."""
        return self.count <= self.mean.size

    @classmethod
    def of(cls, features: np.ndarray) -> Statistics:
        """Of features ``(N, F)``; a ValueError for fewer than two images, or features that are not finite."""
        if len(features) < 2:
            raise ValueError(f"a Frechet distance needs at least two images on each side, one has {len(features)}")
        if not np.isfinite(features).all():
            raise ValueError(
                "a Frechet distance needs finite features: an image has NaN or Inf pixels, or the extractor's weights do"
            )
        values = np.asarray(features, dtype=np.float64)
        return cls(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))

    def save(self, path: Path, key: Key) -> None:
        """Write them with their key, whole or not at all, without pickle."""
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, mean=self.mean, covariance=self.covariance, count=self.count, key=np.array(json.dumps(key)))

    @classmethod
    def load(cls, path: Path, key: Key) -> Statistics:
        """Read what :meth:`save` has written; a ValueError if they have another key, or cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = json.loads(str(file["key"]))
                statistics = cls(file["mean"], file["covariance"], int(file["count"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no reference statistics ({error}): remove it, and they are made again") from error
        wanted = json.loads(json.dumps(key))  # tuples are lists there
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        if differing:
            told = "; ".join(f"{name} is {found.get(name)!r}, wanted {wanted.get(name)!r}" for name in differing)
            raise ValueError(f"{path} holds statistics of something else: {told}. Remove it, or name another cache")
        return statistics


def frechet_distance(one: Statistics, other: Statistics) -> float:
    r"""Squared Frechet distance of two Gaussians, by torch-fidelity.

    .. math:: \|m_1 - m_2\|^2 + \operatorname{tr}(C_1 + C_2 - 2 (C_1 C_2)^{1/2})

    It is biased upwards for few images: compare distances of equal counts only (the paper's FIDs are of all test images).

    Raises:
        ValueError: for features of different widths.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"features of widths {one.mean.size} and {other.mean.size} cannot be compared: use one extractor for both"
        )
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric  # only a test with such a distance needs it

    pair = [{"mu": side.mean, "sigma": side.covariance} for side in (one, other)]
    return float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])


def bootstrap_deviation(features: np.ndarray, reference: Statistics, resamples: int, seed: int) -> float:
    """Standard deviation of the distance over at least 2 resamples of the judged images ``(N, F)``, the reference held fixed."""
    random = np.random.default_rng(seed)
    rounds = tqdm(range(resamples), desc="interval", unit="resample")
    draws = (random.integers(len(features), size=len(features)) for _ in rounds)
    # The deviation, not the quantiles: a resample has fewer different images than the set, and the distance's bias for few images
    # shifts all of its quantiles upwards.
    return float(np.std([frechet_distance(Statistics.of(features[draw]), reference) for draw in draws], ddof=1))
