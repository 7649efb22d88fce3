"""Post-hoc densities: what they recover, and that they are functions of their data and their seeds."""

from __future__ import annotations

import math

import pytest
import torch

from jiio_lightning.models.density import KINDS, LatentVAE, Mixture, Prior, VAEMixture


def two_bumps(n: int, seed: int = 0) -> torch.Tensor:
    """An even mixture around (3, 0, 100) and (-3, 0, 100) with standard deviations 0.5, 0.2 and 10."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
    noise = torch.randn(n, 3, generator=generator) * torch.tensor([0.5, 0.2, 10.0])
    return noise + torch.cat([3 * sign, torch.zeros(n, 1), torch.full((n, 1), 100.0)], dim=1)


def small(steps: int = 500) -> VAEMixture:
    return VAEMixture(components=4, width=32, latent=3, layers=3, steps=steps, learning_rate=5e-3)


def test_a_mixture_recovers_a_mixture():
    density = Mixture(2).fit(two_bumps(4000), seed=0)
    state = density.state()
    order = state["means"][:, 0].argsort()
    assert torch.allclose(state["weights"], torch.tensor(0.5, dtype=torch.float64), atol=0.03)
    assert torch.allclose(state["means"][order, 0], torch.tensor([-3.0, 3.0], dtype=torch.float64), atol=0.06)
    deviations = torch.stack([state["covariances"][i].diagonal().sqrt() for i in order])
    assert torch.allclose(deviations, torch.tensor([0.5, 0.2, 10.0], dtype=torch.float64).expand(2, 3), rtol=0.06)


def test_one_component_is_the_covariance_of_the_latents():
    """With the ridge on it in units of the deviations of the latents, which differ by factors of 50 and are correlated."""
    data = (
        torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[5.0, 1, 0], [0, 0.1, 0.05], [0, 0, 2]])
    ).double()
    state = Mixture(1, ridge=0.5).fit(data + 30, seed=0).state()
    torch.testing.assert_close(state["means"][0], data.mean(dim=0) + 30)
    torch.testing.assert_close(state["covariances"][0], data.T.cov(correction=0) + 0.5 * data.var(dim=0).diag())


@pytest.mark.parametrize("make", [lambda: Mixture(2), small], ids=["gmm", "vae_gmm"])
def test_samples_have_the_moments_of_the_data(make):
    data = two_bumps(4000)
    samples = make().fit(data, seed=0).sample(4000, seed=1)
    assert samples.shape == (4000, 3) and samples.dtype == torch.float32
    assert torch.allclose(samples.mean(dim=0) / data.std(dim=0), data.mean(dim=0) / data.std(dim=0), atol=0.15)
    scale = data.std(dim=0).outer(data.std(dim=0))
    assert torch.allclose(samples.T.cov() / scale, data.T.cov() / scale, atol=0.2)
    assert (samples[:, 0].abs() < 1.5).float().mean() < 0.1, "two bumps, not one"


@pytest.mark.parametrize("make", [lambda: Mixture(2), lambda: small(100), Prior], ids=["gmm", "vae_gmm", "prior"])
def test_a_fit_is_a_function_of_data_and_seed_alone(make):
    data = two_bumps(300)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = make().fit(data, seed=5).sample(20, seed=7)
    assert torch.get_rng_state().equal(before), "the global generator is left alone"
    torch.manual_seed(1)
    assert make().fit(data, seed=5).sample(20, seed=7).equal(one)
    assert not make().fit(data, seed=5).sample(20, seed=8).equal(one)


def test_samples_of_a_mixture_are_in_no_order():
    signs = Mixture(2).fit(two_bumps(500), seed=0).sample(200, seed=0)[:, 0].sign()
    assert 60 < int((signs[1:] != signs[:-1]).sum()) < 140


@pytest.mark.parametrize("mean, log_variance", [(0.0, 0.0), (1.5, -0.7)], ids=["the prior", "another posterior"])
def test_the_loss_of_the_vae_of_latents(mean, log_variance):
    """With a decoder that gives 0: the sum of log v_j / 2 + x_j^2 / (2 v_j), and the divergence of the posterior from N(0, I)."""
    vae = LatentVAE(2, width=4, latent=3, layers=2)
    with torch.no_grad():
        for weight in vae.parameters():
            weight.zero_()
        vae.encoder[-1].bias.copy_(torch.tensor([mean] * 3 + [log_variance] * 3))
        vae.log_variance.copy_(torch.tensor([0.4, -0.2]))
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    wanted = 0.1 + 0.5 / (2 * torch.tensor(0.4).exp()) + 2.5 / (2 * torch.tensor(-0.2).exp())
    posterior, prior = (torch.distributions.Normal(*where) for where in ((mean, math.exp(log_variance / 2)), (0.0, 1.0)))
    wanted = wanted + 3 * torch.distributions.kl_divergence(posterior, prior)
    assert vae.loss(x, torch.Generator()).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_vae_that_says_nothing_samples_its_likelihood(monkeypatch):
    """With zeros for weights each posterior is the prior: the mixture is fitted to that, not to means of 0. Samples are noise."""

    def zero(self: VAEMixture, standard: torch.Tensor, generator: torch.Generator) -> None:
        for weight in self.vae.parameters():
            torch.nn.init.zeros_(weight)
        torch.nn.init.constant_(self.vae.log_variance, math.log(0.25))

    monkeypatch.setattr(VAEMixture, "_train", zero)
    density, data = VAEMixture(components=1, width=4, latent=2, layers=2), two_bumps(4000)
    samples = density.fit(data, seed=0).sample(4000, seed=0)
    covariance = density.state()["mixture.covariances"][0]
    torch.testing.assert_close(covariance, torch.eye(2).double(), rtol=0, atol=3 / math.sqrt(2000))
    torch.testing.assert_close(samples.std(dim=0), 0.5 * data.std(dim=0), rtol=3 / math.sqrt(8000), atol=0)


def test_latents_that_no_density_can_be_fitted_to():
    with pytest.raises(ValueError, match="at least 20 latents .* got \\(5, 3\\): take more images"):
        Mixture().fit(two_bumps(5), seed=0)
    with pytest.raises(ValueError, match="without NaN"):
        Mixture(2).fit(two_bumps(5).fill_(float("nan")), seed=0)


def test_the_sizes_of_the_paper():
    density = KINDS["vae_gmm"]()
    assert (density.width, density.latent, density.layers, density.mixture.components) == (2096, 384, 4, 20)  # C.2
