"""The benchmark's numbers are those of its clock, and memory does not grow with the steps."""

from itertools import count

import pytest

from experiments.benchmarks.overhead import overhead


def test_overhead_reports_each_method(monkeypatch):
    """By a clock that is one second later whenever it is read: 10 bare passes take a second, and so does a solve."""
    monkeypatch.setattr("experiments.benchmarks.overhead.time.perf_counter", count().__next__)
    rows = overhead(batch=1, steps=4, repeats=2)
    assert [(row["method"], row["memory"]) for row in rows] == [("Picard", 0), ("Anderson", 20)]
    for row in rows:
        assert [row[name] for name in ("bare_ms", "step_ms", "ratio")] == pytest.approx([100, 250, 2.5])
        assert row["peak_mib"] > 0 and row["peak_mib_twice"] < 1.05 * row["peak_mib"]
