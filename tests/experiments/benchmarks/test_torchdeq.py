"""The benchmark's rows, beside a stand-in for TorchDEQ, which is not installed."""

import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from experiments.benchmarks import torchdeq as benchmark
from experiments.benchmarks.torchdeq import ASKED, OURS, THEIRS, torchdeq


def plain(func, z0):
    """Iterations, and a last one with its graph: what TorchDEQ calls a phantom gradient."""
    parts = (lambda z: func(z)) if isinstance(z0, torch.Tensor) else (lambda z: func(*z))
    with torch.no_grad():
        z = z0
        for _ in range(40):
            z = parts(z)
    return [parts(z)], {}


@pytest.mark.parametrize("name", ["dense, n = 256", "two tensors, n = 128 + 128"])
def test_a_row_for_each_solver_and_the_ratios(name, monkeypatch):
    """By a clock that is one second later whenever it is read: each pass takes one."""
    monkeypatch.setitem(sys.modules, "torchdeq", SimpleNamespace(get_deq=lambda **options: plain))
    monkeypatch.setattr(benchmark.time, "process_time", count().__next__)
    found = torchdeq(cases=(name,), tols=(1e-4,), repeats=1)
    rows = found["rows"]
    assert len(rows) == len(OURS) * len(ASKED) + len(THEIRS) and {row["forward_ms"] for row in rows} == {1000}
    for row in rows:
        assert row["residual"] < (row["asked"] if row["library"] == "ours" else 1) and row["peak_mib"] > 0
        assert row["gradient_error"] < (1e-3 if row["library"] == "ours" else 1.1)
        assert row["evaluations"] > 5 and row["products"] == (1 if row["library"] == "TorchDEQ" else row["products"])
    (ratio,) = found["ratios"]
    assert ratio["same_tol"] == 1 and ratio["theirs"] == "Picard"


def test_without_torchdeq_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdeq", None)
    with pytest.raises(SystemExit, match="this benchmark needs TorchDEQ: pip install --no-deps torchdeq==0.1.0"):
        torchdeq()
