"""The measuring code measures: its numbers are positive, consistent, and its memory count sees what is allocated."""

import torch

from jiio_lightning.bench.overhead import overhead, peak_mib


def test_peak_mib_counts_live_memory_and_not_the_sum_of_allocations():
    def work():
        for _ in range(3):
            torch.zeros(2**20)  # 4 MiB each, freed before the next

    assert 3.9 < peak_mib(work) < 6


def test_overhead_reports_each_method(capsys):
    rows = overhead(batch=1, steps=3, repeats=1)
    assert [row["method"] for row in rows] == ["Picard", "Anderson"]
    for row in rows:
        assert row["step_ms"] > 0
        assert row["peak_mib"] > 0
        assert abs(row["ratio"] - row["step_ms"] / row["bare_ms"]) < 1e-6
        assert row["peak_mib_twice"] < 1.05 * row["peak_mib"]
