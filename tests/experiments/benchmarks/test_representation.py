"""The benchmark's numbers are those of its clock, and what a step keeps and allocates is in its rows."""

from itertools import count

import pytest

from experiments.benchmarks.representation import FAMILIES, representation


def test_a_row_for_each_net_and_way(monkeypatch):
    monkeypatch.setattr("experiments.benchmarks.representation.time.process_time", count().__next__)
    rows = representation(size=16, width=8, steps=2, settle=2)
    found = {(row["net"], row["how"]): row for row in rows}
    assert {net for net, _ in found} == {*FAMILIES} and len(found) == len(rows) == 6 * len(FAMILIES)
    for (_, how), row in found.items():
        assert (row["ms"], row["ratio"]) == pytest.approx((1000, 1)), "each step takes one second of this clock"
        assert row["cache_mib"] == (pytest.approx(16 * 24 * 8 * 4 / 2**20) if how in ("bare", "warm", "converged") else 0)
        assert row["peak_mib"] > 0 and (row["evaluations"] > 2 if how == "cold" else row["evaluations"] >= 1)
    for net in FAMILIES:
        assert found[net, "bare"]["evaluations"] == 1
        assert found[net, "explicit, 4 layers"]["peak_mib"] > found[net, "bare"]["peak_mib"]
