"""Densities that are fitted to the latents of a trained generator, for sampling (C.2; Ghosh et al. 2020, Sec. 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from tqdm import tqdm


class Density(ABC):
    """A density of latents: fitted, then sampled."""

    @abstractmethod
    def fit(self, latents: Tensor, seed: int) -> Density:
        """Fit to latents ``(N, d)``; a function of them and the seed. A ValueError if they are too few, or not all finite."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Tensor:
        """``n`` latents ``(n, d)``, float32 on the host, in random order; a function of the fit and the seed."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What was fitted, by name."""

    def save(self, path: Path) -> None:
        """Write :meth:`state` to a file for ``torch.load``."""
        torch.save(self.state(), path)


class Prior(Density):
    """The standard normal, a VAE's own prior; only the width is learned."""

    def fit(self, latents: Tensor, seed: int) -> Prior:
        self.width = _checked(latents, 1).shape[1]
        return self

    def sample(self, n: int, seed: int) -> Tensor:
        return torch.randn(n, self.width, generator=_generator(seed))

    def state(self) -> dict[str, Tensor]:
        return {"width": torch.tensor(self.width)}


class Mixture(Density):
    """A mixture of normal distributions with full covariances, by expectation maximisation (scikit-learn).

    Args:
        components: of the mixture (C.2: 20; Ghosh et al.: 10).
        ridge: added to the diagonal of each standardised covariance, for components of few latents.
    """

    def __init__(self, components: PositiveInt = 20, ridge: NonNegativeFloat = 1e-6) -> None:
        self.components = components
        self.ridge = ridge

    def fit(self, latents: Tensor, seed: int) -> Mixture:
        values = _checked(latents, max(self.components, 2)).double()
        # Standardised: k-means, where the fit starts, would only see the latent of the largest variance.
        mean, scale = values.mean(dim=0), values.std(dim=0).clamp_min(1e-12)
        fitted = GaussianMixture(self.components, reg_covar=self.ridge, random_state=seed).fit((values - mean) / scale)
        fitted.means_ = mean.numpy() + fitted.means_ * scale.numpy()
        fitted.covariances_ = fitted.covariances_ * torch.outer(scale, scale).numpy()
        self.fitted = fitted
        return self

    def sample(self, n: int, seed: int) -> Tensor:
        self.fitted.random_state = seed
        rows, _ = self.fitted.sample(n)  # one component after the other
        order = np.random.RandomState(seed).permutation(n)
        return torch.from_numpy(rows[order]).float()

    def state(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(self.fitted, f"{name}_")) for name in ("weights", "means", "covariances")}


class LatentVAE(nn.Module):
    r"""A fully connected VAE of vectors, with a normal likelihood and a learned variance for each coordinate.

    .. math:: -\log p(x) \le \sum_j \left( \frac{(x_j - D(u)_j)^2}{2 \sigma_j^2} + \frac{1}{2} \log 2 \pi \sigma_j^2 \right)
              + \mathrm{KL}(q(u | x) \| \mathcal{N}(0, I))

    There are ``layers`` linear ones of ``width`` in each direction, and u has the width ``latent``.
    """

    def __init__(self, inputs: int, width: int, latent: int, layers: int) -> None:
        super().__init__()
        self.encoder = _perceptron([inputs, *[width] * (layers - 1), 2 * latent])
        self.decoder = _perceptron([latent, *[width] * (layers - 1), inputs])
        # With one variance for all coordinates, structure in a few of them costs more divergence than it gains, and the posterior
        # collapses. The variances start small for the same reason.
        self.log_variance = nn.Parameter(torch.full((inputs,), -3.0))

    def code(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A sample u of each posterior ``(B, latent)`` and its divergence from the prior ``(B,)``, for x ``(B, d)``."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        return mean + (0.5 * log_variance).exp() * noise, divergence

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The negative ELBO without its constant, a mean over x ``(B, d)``."""
        u, divergence = self.code(x, generator)
        gap = (x - self.decoder(u)).square()
        misfit = 0.5 * (gap * (-self.log_variance).exp() + self.log_variance).sum(dim=1)
        return (misfit + divergence).mean()


class VAEMixture(Density):
    """C.2's density: a fully connected VAE of the standardised latents, and a mixture of normals over the VAE's own.

    The mixture is fitted to one posterior sample for each latent. Samples get the likelihood's noise.

    Args:
        components: of the mixture (C.2: 20).
        width: of the VAE's hidden layers (C.2: 2096).
        latent: of the VAE (C.2: 384).
        layers: fully connected ones in each direction (C.2: 4).
        steps: of Adam, one cycle.
        batch_size: latents in each, at most.
        learning_rate: its peak.
    """

    def __init__(
        self,
        components: PositiveInt = 20,
        width: PositiveInt = 2096,
        latent: PositiveInt = 384,
        layers: PositiveInt = 4,
        steps: PositiveInt = 5000,
        batch_size: PositiveInt = 256,
        learning_rate: PositiveFloat = 1e-3,
    ) -> None:
        self.mixture = Mixture(components)
        self.width = width
        self.latent = latent
        self.layers = layers
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate

    def fit(self, latents: Tensor, seed: int) -> VAEMixture:
        latents = _checked(latents, max(self.mixture.components, 2)).float()
        self.mean, self.scale = latents.mean(dim=0), latents.std(dim=0).clamp_min(1e-6)
        standard, generator = (latents - self.mean) / self.scale, _generator(seed)
        with torch.random.fork_rng(devices=[]):  # torch's initialisers take no generator
            torch.manual_seed(seed)
            self.vae = LatentVAE(latents.shape[1], self.width, self.latent, self.layers)
        self._train(standard, generator)
        # Draws, not the posterior means: those of a coordinate that the VAE does not use would be constant.
        with torch.no_grad():
            codes, _ = self.vae.code(standard, generator)
        self.mixture.fit(codes, seed)
        return self

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        mean = self.vae.decoder(self.mixture.sample(n, seed))
        noise = torch.randn(mean.shape, generator=_generator(seed))
        return self.mean + self.scale * (mean + (0.5 * self.vae.log_variance).exp() * noise)

    def state(self) -> dict[str, Tensor]:
        parts = {"mean": self.mean, "scale": self.scale} | {f"vae.{name}": value for name, value in self.vae.state_dict().items()}
        return parts | {f"mixture.{name}": value for name, value in self.mixture.state().items()}

    def _train(self, standard: Tensor, generator: torch.Generator) -> None:
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps)
        size = min(self.batch_size, len(standard))
        with torch.enable_grad():
            for _ in tqdm(range(self.steps), desc="density", unit="step"):
                rows = torch.randint(len(standard), (size,), generator=generator)
                optimizer.zero_grad()
                self.vae.loss(standard[rows], generator).backward()
                optimizer.step()
                schedule.step()


KINDS: dict[str, type[Density]] = {"gmm": Mixture, "vae_gmm": VAEMixture, "prior": Prior}
"""Densities by their names on the command line."""


def _perceptron(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    pairs = zip(widths, widths[1:], strict=False)
    return nn.Sequential(*[layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())][:-1])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _checked(latents: Tensor, least: int) -> Tensor:
    """Latents ``(N, d)`` on the host, if a density can be fitted to them."""
    if latents.ndim != 2 or len(latents) < least or not bool(torch.isfinite(latents).all()):
        raise ValueError(
            f"a density needs at least {least} latents (N, d) without NaN or Inf, got {tuple(latents.shape)}: take more images, "
            "fewer components, or a checkpoint that solves"
        )
    return latents.detach().cpu()
