from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from jiio_lightning.models.blocks import ResidualBlock, conv1x1, conv3x3, group_norm


@pytest.mark.parametrize(("channels", "groups", "expected"), [(16, 4, 4), (24, 8, 8), (6, 4, 3), (7, 4, 1), (2, 8, 2), (1, 4, 1)])
def test_group_norm_takes_the_most_groups_that_divide_the_channels(channels: int, groups: int, expected: int) -> None:
    assert group_norm(channels, groups).num_groups == expected


@pytest.mark.parametrize("conv", [conv3x3(4, 6), conv1x1(4, 6), conv3x3(4, 6, stride=2)])
def test_convolutions_have_a_weight_of_learned_length_and_no_bias(conv: torch.nn.Conv2d) -> None:
    assert conv.bias is None and parametrize.is_parametrized(conv, "weight")
    length, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    norm = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(conv.weight, length * direction / norm)


def test_the_block_is_its_formula() -> None:
    block = ResidualBlock(channels=4, expansion=3, groups=2)
    z, injection = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    inner = block.widen_norm(block.widen(z)).relu()
    assert inner.shape[1] == 12
    inner = block.narrow_norm(block.narrow(inner) + injection)
    torch.testing.assert_close(block(z, injection), block.out_norm((inner + z).relu()))


def test_a_cached_weight_gives_the_same_output_and_gradient() -> None:
    block = ResidualBlock(4, 3, 2)
    z, injection = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    plain = block(z, injection)
    gradients = torch.autograd.grad(plain.square().sum(), list(block.parameters()))
    with parametrize.cached():
        cached = block(z, injection)
        again = torch.autograd.grad(block(z, injection).square().sum(), list(block.parameters()))
    assert torch.equal(cached, plain)
    for a, b in zip(again, gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_copy_shares_nothing() -> None:
    block = ResidualBlock(4, 3, 2)
    twin, z = copy.deepcopy(block), torch.randn(1, 4, 5, 5)
    assert torch.equal(twin(z, z), block(z, z))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert not torch.allclose(twin(z, z), block(z, z))
