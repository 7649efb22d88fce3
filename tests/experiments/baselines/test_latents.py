"""What the latents of an autoencoder cost."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from experiments.baselines import Code, ConvDecoder, Deterministic, Unregularised, Variational
from jiio_lightning.randomness import SampleStream, sample_generators


def code(n: int = 3) -> Code:
    generator = torch.Generator().manual_seed(0)
    return Code(torch.randn(n, 4, generator=generator), torch.randn(n, 4, generator=generator))


def test_the_divergence_is_that_of_two_normal_distributions():
    given, unit = code(), MultivariateNormal(torch.zeros(4), torch.eye(4))
    wanted = [
        kl_divergence(MultivariateNormal(mean, log_variance.exp().diag()), unit).item()
        for mean, log_variance in zip(given.mean, given.log_variance, strict=True)
    ]
    assert Variational(2.5).cost(given).tolist() == pytest.approx([2.5 * value for value in wanted], rel=1e-5)
    assert Variational().cost(Code(torch.zeros(1, 4), torch.zeros(1, 4))).item() == 0


def test_the_cost_is_the_negative_elbo():
    """|y - D(x)|^2 + 2 s^2 KL is 2 s^2 times the negative ELBO of a normal likelihood, up to a constant of s."""
    deviation, gap, given = 0.3, torch.tensor([1.0, 2.0, 0.1]), code()
    likelihood, posterior = Normal(0.0, deviation), Normal(given.mean, (0.5 * given.log_variance).exp())
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1)
    negative_elbo = divergence - likelihood.log_prob(gap) + likelihood.log_prob(torch.tensor(0.0))
    beta = 2 * deviation**2
    assert torch.allclose(gap.square() + Variational(beta).cost(given), beta * negative_elbo)


def test_a_variational_latent_has_the_posterior_as_its_distribution():
    given = code(1)
    generators = sample_generators(0, 0, torch.arange(4000), SampleStream.LATENT)
    many = Code(given.mean.expand(4000, 4), given.log_variance.expand(4000, 4))
    x = Variational().latent(many, generators)
    spread = (0.5 * given.log_variance[0]).exp()
    assert ((x.mean(dim=0) - given.mean[0]) / spread).abs().max() < 0.06
    assert torch.allclose(x.std(dim=0), spread, rtol=0.05)


def test_noise_is_a_function_of_seed_step_and_sample():
    given = code(3)

    def draw(step: int, index: list[int], rows: list[int]) -> torch.Tensor:
        part = Code(given.mean[rows], given.log_variance[rows])
        return Variational().latent(part, sample_generators(0, step, torch.tensor(index), SampleStream.LATENT))

    whole = draw(5, [10, 11, 12], [0, 1, 2])
    assert draw(5, [12, 10], [2, 0]).equal(whole[[2, 0]]), "wherever in the batch"
    assert not draw(6, [10, 11, 12], [0, 1, 2]).equal(whole)
    probes = torch.stack([torch.randn(4, generator=g) for g in sample_generators(0, 5, torch.tensor([10, 11, 12]))])
    noise = (whole - given.mean) / (0.5 * given.log_variance).exp()
    assert not torch.allclose(noise, probes, atol=0.1), "not the numbers that the Jacobian penalty's probes have"


def test_the_gradient_goes_through_the_noise():
    mean, log_variance = torch.zeros(1, 4, requires_grad=True), torch.ones(1, 4, requires_grad=True)
    x = Variational().latent(Code(mean, log_variance), sample_generators(0, 0, torch.tensor([0])))
    slopes = torch.autograd.grad(x.sum(), (mean, log_variance))
    assert slopes[0].equal(torch.ones(1, 4)) and torch.allclose(slopes[1], x / 2)


def test_the_deterministic_costs():
    given, decoder = Code(code().mean), ConvDecoder(4, (1, 8, 8), 2)
    rae = Deterministic(latent=0.5, decoder=0.1)
    assert torch.allclose(rae.cost(given), 0.25 * given.mean.square().sum(dim=1))
    matrices = [w for name, w in decoder.named_parameters() if name.endswith("weight") and w.ndim > 1]
    assert rae.decoder_cost(decoder).item() == pytest.approx(0.1 * sum(w.square().sum().item() for w in matrices), rel=1e-5)
    assert rae.latent(given, []).equal(given.mean)


def test_unregularised_costs_nothing():
    given = Code(code().mean)
    assert Unregularised().cost(given).tolist() == [0] * 3 and Unregularised().decoder_cost(ConvDecoder(4, (1, 8, 8), 1)) == 0
    assert Unregularised().latent(given, []) is given.mean
