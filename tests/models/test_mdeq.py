from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from jiio_lightning.models.mdeq import MDEQCell

SHAPES = [((4,), (6, 6)), ((4, 8), (8, 8)), ((4, 6, 8), (9, 7)), ((4, 4, 6, 8), (13, 10)), ((4, 8), (7, 7))]
each = pytest.mark.parametrize(("channels", "size"), SHAPES, ids=[f"{len(c)}-{s}" for c, s in SHAPES])


@each
def test_a_packed_state_goes_in_and_comes_out(channels: tuple[int, ...], size: tuple[int, int]) -> None:
    cell = MDEQCell(channels, size, expansion=2)
    z, injection = torch.randn(3, cell.pyramid.numel), torch.randn(3, cell.pyramid.numel)
    out = cell(z, injection)
    assert out.shape == z.shape and bool(torch.isfinite(out).all())
    assert not torch.allclose(out, cell(z, torch.randn_like(injection)), atol=1e-3)
    assert not torch.allclose(out, cell(torch.randn_like(z), injection), atol=1e-3)


@each
def test_a_sample_does_not_depend_on_its_batch_mates(channels: tuple[int, ...], size: tuple[int, int]) -> None:
    """Group norm, not batch norm (Sec. 4)."""
    cell = MDEQCell(channels, size, expansion=2).double()
    z, injection = torch.randn(4, cell.pyramid.numel).double(), torch.randn(4, cell.pyramid.numel).double()
    together = cell(z, injection)
    for i in range(4):
        torch.testing.assert_close(cell(z[i : i + 1], injection[i : i + 1]), together[i : i + 1], rtol=1e-10, atol=1e-12)
    spoilt = cell(z.index_fill(0, torch.tensor([1]), torch.nan), injection)
    assert torch.equal(spoilt[[0, 2, 3]], together[[0, 2, 3]])


def test_every_scale_sees_every_other() -> None:
    cell = MDEQCell((4, 6, 8), (12, 12), expansion=2)
    z = torch.randn(1, cell.pyramid.numel)
    sizes = [channels * height * width for channels, height, width in cell.pyramid.shapes]
    out = cell(z, torch.zeros_like(z)).split(sizes, dim=1)
    for block in range(3):
        parts = list(z.split(sizes, dim=1))
        parts[block] = parts[block] + torch.randn_like(parts[block])
        moved = cell(torch.cat(parts, dim=1), torch.zeros_like(z)).split(sizes, dim=1)
        assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(out, moved, strict=True))


def test_training_and_evaluation_are_the_same_function() -> None:
    cell, z = MDEQCell((4, 8), (8, 8)), torch.randn(2, 4 * 64 + 8 * 16)
    assert torch.equal(cell.train()(z, z), cell.eval()(z, z))


def test_cached_weights_give_the_same_output() -> None:
    cell, z = MDEQCell((4, 8), (8, 8)), torch.randn(2, 4 * 64 + 8 * 16)
    with parametrize.cached():
        cached = [cell(z, z) for _ in range(2)]
    assert torch.equal(cached[0], cell(z, z)) and torch.equal(cached[1], cached[0])


def test_a_copy_is_the_same_function_of_its_own_weights() -> None:
    cell, z = MDEQCell((4, 8), (8, 8)), torch.randn(2, 4 * 64 + 8 * 16)
    twin = copy.deepcopy(cell)
    assert torch.equal(twin(z, z), cell(z, z))
    twin.load_state_dict({key: 2 * value for key, value in twin.state_dict().items()})
    assert not torch.allclose(twin(z, z), cell(z, z))


@each
def test_double_backward_is_the_central_difference(channels: tuple[int, ...], size: tuple[int, int]) -> None:
    """Eq. 27 and Eq. 16-17 differentiate vector-Jacobian products."""
    cell = MDEQCell(channels, size, expansion=2).double()
    z, injection, cotangent, direction, weight = torch.randn(5, 2, cell.pyramid.numel, dtype=torch.float64)

    def pulled(z: torch.Tensor) -> torch.Tensor:
        leaf = z.detach().requires_grad_()
        (pull,) = torch.autograd.grad(cell(leaf, injection), leaf, cotangent)
        return (pull * weight).sum()

    leaf = z.clone().requires_grad_()
    (pull,) = torch.autograd.grad(cell(leaf, injection), leaf, cotangent, create_graph=True)
    value = (pull * weight).sum()
    gradients = torch.autograd.grad(value, (leaf, *cell.parameters()), allow_unused=True)
    step = 1e-6
    difference = (pulled(z + step * direction) - pulled(z - step * direction)) / (2 * step)
    torch.testing.assert_close((gradients[0] * direction).sum(), difference, rtol=1e-4, atol=1e-6)
    assert sum(g is not None and bool(g.any()) for g in gradients[1:]) > len(gradients) // 2
