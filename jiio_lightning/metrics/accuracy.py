"""How far an accuracy of so many samples can be trusted."""

from __future__ import annotations

from scipy.stats import binomtest


def accuracy_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927): it stays in [0, 1] and has its coverage near the ends too.

    Args:
        correct: samples that were classified correctly.
        total: samples.
        confidence: coverage.

    Raises:
        ValueError: if there is no sample, or more correct ones than samples.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"an interval needs 0 <= correct <= total and total > 0, got {correct} of {total}")
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
