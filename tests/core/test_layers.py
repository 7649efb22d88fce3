"""Equilibria as layers: their gradients, and what is remembered of them."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.core.layers import Layers
from jiio_lightning.core.solvers import Anderson, FixedPoint


def layers(steps: int = 200, tol: float = 1e-13) -> Layers:
    solver = FixedPoint(Anderson(memory=5), steps, tol)
    return Layers(solver, solver)


def test_two_layers_in_a_row_have_the_gradient_of_their_composition():
    torch.manual_seed(0)
    weights = [torch.randn(5, 5, dtype=torch.float64) * 0.3 for _ in range(2)]
    inputs = torch.randn(3, 5, dtype=torch.float64)
    cells = [lambda z, x, w=w: torch.tanh(z @ w + x) for w in weights]

    def value(scale: torch.Tensor) -> torch.Tensor:
        solve, z = layers(), inputs
        for cell in cells:
            z = solve(lambda z, x, cell=cell: cell(scale * z, x), z, 5)
        return z.square().sum()

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(scale), scale)
    with torch.no_grad():
        difference = (value(scale + 1e-5) - value(scale - 1e-5)) / 2e-5
    assert float(slope) == pytest.approx(float(difference), rel=1e-6) and abs(slope) > 0.1


def test_what_is_remembered():
    solve = layers(steps=3, tol=0.0)
    x = torch.ones(2, 1, requires_grad=True)
    z = solve(lambda z, x: 0.5 * z + x, x, 1)
    (layer,) = solve.solved
    assert z.requires_grad and not layer.z.requires_grad and layer.z.equal(z.detach()) and layer.x.equal(x.detach())
    assert torch.allclose(layer.gap, 0.5 * layer.z + 1 - layer.z)
    assert torch.allclose(layer.residual, (layer.gap / layer.fz).abs().squeeze(1))


def test_the_residual_is_the_worst_layers():
    solve = layers(steps=1, tol=0.0)  # z is f at 0
    solve(lambda z, x: x + 0 * z, torch.ones(2, 1), 1)
    solve(lambda z, x: 0.5 * z + x, torch.ones(2, 1), 1)  # z = 1, f = 1.5
    assert torch.allclose(solve.residual(torch.zeros(2, 1)), torch.full((2,), 1 / 3))
    assert layers().residual(torch.zeros(4, 1)).tolist() == [0.0] * 4
