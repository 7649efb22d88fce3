"""95 % intervals of what is measured on a sample: of a mean, of a median, of a share."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

LEVEL = 0.95
NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))
"""Standard deviations of a normal interval, 1.96."""
LEAST = 6
"""Values of which there is an interval: the median of fewer has none, and a normal one of their mean would hold in 70 to 88 %."""
Interval = tuple[float, float]


def mean_interval(values: np.ndarray) -> Interval | None:
    """Normal interval of the mean of values ``(N,)``, mean -+ 1.96 s / sqrt(N); None for fewer than ``LEAST``."""
    if len(values) < LEAST:
        return None
    half = NORMAL * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def median_interval(values: np.ndarray) -> Interval | None:
    """Interval of the median of values ``(N,)`` between two order statistics, exact for every distribution; None for fewer than
    ``LEAST``."""
    if len(values) < LEAST:
        return None
    found = stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def share_interval(values: np.ndarray) -> Interval:
    """Wilson's interval of the share of ones among zeros and ones ``(N,)``: it stays within [0, 1] and is right at its ends."""
    found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
