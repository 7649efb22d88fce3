"""95 % intervals of what is measured on a sample: of a mean, of a median, of a share."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

LEVEL = 0.95
Interval = tuple[float, float]


def mean_interval(values: np.ndarray) -> Interval:
    """Normal interval of the mean of values ``(N,)``, mean -+ 1.96 s / sqrt(N); NaN for a single one."""
    if len(values) < 2:
        return math.nan, math.nan
    error = values.std(ddof=1) / math.sqrt(len(values))
    half = float(stats.norm.ppf((1 + LEVEL) / 2) * error)
    return float(values.mean()) - half, float(values.mean()) + half


def median_interval(values: np.ndarray) -> Interval:
    """Interval of the median of values ``(N,)`` between two order statistics: exact for every distribution; NaN below N = 6."""
    found = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def share_interval(values: np.ndarray) -> Interval:
    """Wilson's interval of the share of ones among zeros and ones ``(N,)``: it stays within [0, 1] and is right at its ends."""
    found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
