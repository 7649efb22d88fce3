"""The counters against counts by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from experiments.benchmarks.scale import Count, graph_bytes, scale


def convolve() -> torch.Tensor:
    """A 3x3 convolution of two 4-channel images of 5x7 to 6 channels."""
    return F.conv2d(torch.ones(2, 4, 5, 7, requires_grad=True), torch.ones(6, 4, 3, 3), padding=1)


def test_a_convolution_and_its_backward_pass_by_hand():
    once = 2 * (2 * 6 * 5 * 7) * (4 * 3 * 3)  # two for each of 36 products of an output's 420 numbers
    assert Count.of(convolve).flops == once
    assert Count.of(lambda: convolve().sum().backward()).flops == 2 * once  # the weight is a constant


def test_what_an_operator_moves_and_what_its_graph_keeps_by_hand():
    image, weight = torch.ones(2, 4, 5, 7, requires_grad=True), torch.ones(6, 4, 3, 3, requires_grad=True)
    with Count() as count, graph_bytes() as kept:
        F.conv2d(image, weight, padding=1).flatten(1)
    assert count.bytes == 4 * (2 * 4 * 5 * 7 + 6 * 4 * 9 + 2 * 6 * 5 * 7)
    assert sum(kept.values()) == 4 * (2 * 4 * 5 * 7 + 6 * 4 * 9)


@pytest.mark.parametrize("net", ["MNIST generator, reduced", "MNIST classifier, reduced"])
def test_a_joint_step_is_f_and_h_and_their_way_back(net):
    (row,) = scale((net,))
    forward = row["f"] + row["h"]
    assert row["step"] == pytest.approx(2 * forward) and 2.5 * forward < row["outer"] < 3 * forward
