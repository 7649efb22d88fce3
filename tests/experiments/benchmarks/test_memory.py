"""The counter against what is allocated."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.memory import SOLVERS, PeakBytes, memory
from experiments.benchmarks.scale import NETS, build, problem_of
from jiio_lightning.commands.measurement import peak_mib
from jiio_lightning.core.weights import cached_weights

NET = "MNIST classifier, reduced"


def test_a_graph_keeps_what_python_has_let_go():
    weight = torch.ones(1000, requires_grad=True)
    with PeakBytes() as count:
        (weight.exp() * 2).exp().sum()  # both exponentials are kept, what is between them not beyond its use
    assert 4 * 3000 <= count.peak <= 4 * 3000 + 100


def test_the_peaks_are_those_of_real_tensors():
    (row,) = memory((NET,))
    fragment, batch = NETS[NET]
    net = build(fragment)
    with torch.no_grad(), cached_weights(net):
        problem, v = problem_of(net, batch)
        for name, solver in SOLVERS.items():
            assert row[name] == pytest.approx(peak_mib(lambda solver=solver: solver(problem, v)), rel=0.15)
    assert row["anderson"] - row["picard"] == pytest.approx(2 * 20 * v.pack().nbytes / 2**20, rel=0.2)
    assert row["penalty"] > row["lagrangian"] > 0
