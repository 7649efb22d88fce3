"""The convolutional net of few-shot learning."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import Conv4


@pytest.mark.parametrize(
    "side, strided, features", [(28, False, 64), (28, True, 256), (14, True, 64), (33, False, 256), (33, True, 576)]
)
def test_shapes(side, strided, features):
    image = torch.rand(3, 1, side, side)
    net = Conv4((1, side, side), strided=strided)
    assert net(image).shape == (3, 5) and net.layers[0](image).min() == 0
    assert Conv4((1, side, side), None, strided=strided)(image).shape == (3, features)


def test_the_size_of_the_net():
    """Four convolutions without bias, norms with a scale and a shift, one linear layer."""
    expected = 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64 + 5 * 64 + 5
    assert sum(weight.numel() for weight in Conv4((1, 28, 28)).parameters()) == expected


def test_what_an_image_is_judged_with():
    """By batch norm of the episode the others of the call matter, in evaluation too; by the other norms they do not."""
    image = torch.rand(4, 1, 16, 16)
    for norm, alone in (("episode", False), ("running", True), ("group", True)):
        net = Conv4((1, 16, 16), norm=norm).eval()
        net(image)
        assert torch.allclose(net(image)[:2], net(image[:2]), atol=1e-5) == alone, norm


def test_only_running_statistics_are_kept():
    counts = {norm: len(list(Conv4((1, 28, 28), norm=norm).buffers())) for norm in ("episode", "group", "running")}
    assert counts == {"episode": 0, "group": 0, "running": 12}  # mean, variance and number of batches, four times


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match="set strided, or take at least 16 pixels"):
        Conv4((1, 14, 14))
