"""The measuring code measures: its numbers are positive and consistent."""

from experiments.benchmarks.overhead import overhead


def test_overhead_reports_each_method():
    rows = overhead(batch=1, steps=3, repeats=1)
    assert [row["method"] for row in rows] == ["Picard", "Anderson"]
    for row in rows:
        assert row["step_ms"] > 0
        assert row["peak_mib"] > 0
        assert abs(row["ratio"] - row["step_ms"] / row["bare_ms"]) < 1e-6
        assert row["peak_mib_twice"] < 1.05 * row["peak_mib"]
