"""The start of latents: exact where the net is linear, and for every measurement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.operators import Downsampling, Measurement, PixelMask
from jiio_lightning.starts import LinearDecoder

LATENT, HIDDEN, SHAPE = 3, 7, (2, 4, 4)


class Linear:
    """A net whose equilibria and images are affine in x, and latents that are normal."""

    def __init__(self, samples: int = 5000, noise: float = 0.0) -> None:
        draw = torch.Generator().manual_seed(0)

        def randn(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw, dtype=torch.float64)

        self.columns, self.offset = randn(LATENT, *SHAPE), randn(*SHAPE)
        self.states, self.rest = randn(LATENT, HIDDEN), randn(HIDDEN)
        self.x = randn(samples, LATENT) @ randn(LATENT, LATENT) + randn(LATENT)
        self.noise = noise * randn(samples, *SHAPE)

    @property
    def image(self) -> Tensor:
        return torch.einsum("bd,dchw->bchw", self.x, self.columns) + self.offset + self.noise

    @property
    def z(self) -> Tensor:
        return self.x @ self.states + self.rest

    def start(self) -> LinearDecoder:
        learned = LinearDecoder(LATENT)
        learned.fit({"x": self.x, "z": self.z, "image": self.image})
        return learned


def test_it_is_exact_on_a_linear_net():
    net = Linear(samples=60)
    x, z = net.start()(net.image[:5])
    assert torch.allclose(x, net.x[:5], atol=1e-8) and torch.allclose(z, net.z[:5], atol=1e-8)


@pytest.mark.parametrize("operator", [PixelMask(0.5), Downsampling(2)])
def test_measurements_have_the_solution_of_their_linear_problem(operator):
    """Against the normal equations with M as an explicit matrix, one sample at a time."""
    net = Linear(noise=0.3)
    learned = net.start()
    seen: Measurement = operator(net.image[:4], [torch.Generator().manual_seed(i) for i in range(4)])
    x, z = learned(seen.y, seen.apply)
    pixels = torch.eye(32, dtype=torch.float64).view(32, *SHAPE)
    matrices = torch.stack([seen.apply(pixel.expand(4, *SHAPE)).flatten(1) for pixel in pixels], dim=2)
    for i, matrix in enumerate(matrices):
        slopes = matrix @ learned.columns[:-1].flatten(1).T
        gap = seen.y[i].flatten() - matrix @ learned.columns[-1].flatten()
        wanted = torch.linalg.solve(slopes.T @ slopes + learned.penalty, slopes.T @ gap + learned.penalty @ learned.mean)
        assert torch.allclose(x[i], wanted, atol=1e-10)
    assert torch.allclose(z, x @ learned.states[:-1] + learned.states[-1])


def test_it_is_the_posterior_mean_and_beats_least_squares_where_little_is_seen():
    net = Linear(noise=1.0)
    learned = net.start()
    assert torch.allclose(learned.penalty, torch.linalg.inv(torch.cov(net.x.T)), rtol=0.05)  # sigma^2 = 1
    seen = PixelMask(0.2)(net.image, [torch.Generator().manual_seed(i) for i in range(len(net.x))])
    error = (learned(seen.y, seen.apply)[0] - net.x).square().mean()
    learned.penalty.zero_()
    assert error < 0.5 * (learned(seen.y, seen.apply)[0] - net.x).square().mean()


def test_too_few_samples_and_solves_that_failed_are_refused():
    net = Linear(samples=7)
    with pytest.raises(ValueError, match="needs at least 8 solved samples, there are 7"):
        net.start()
    net = Linear(samples=20)
    net.x[3, 1] = float("nan")
    with pytest.raises(ValueError, match="from x, z, image that are not finite: check the checkpoint"):
        net.start()


def test_a_latent_that_never_moves_has_a_start_all_the_same():
    net = Linear(samples=60)
    net.x[:, 1] = 0.5
    x, _ = net.start()(net.image[:5])
    assert torch.allclose(x, net.x[:5], atol=1e-4)
