"""Densities that are fitted to the latents of a trained generator afterwards, for sampling (C.2; Ghosh et al. 2020, Sec. 4)."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

FORMAT = "jiio_lightning density 1"


class Density(ABC):
    """A density of latents: fitted once, then sampled and kept as a file of plain tensors."""

    @abstractmethod
    def fit(self, latents: Tensor, seed: int) -> Density:
        """Fit to latents ``(N, d)``; a function of them and the seed. Returns itself.

        Raises:
            ValueError: if there are too few or not finite ones.
        """

    @abstractmethod
    def sample(self, n: int, seed: int) -> Tensor:
        """``n`` latents ``(n, d)``, float32 on the host; a function of the fit and the seed, in no particular order.

        Raises:
            RuntimeError: before a fit.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What was fitted."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what another one of the same settings was fitted to."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, plain data."""

    def save(self, path: Path) -> None:
        """Write a file that :func:`load_density` reads, without pickled code."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "kind": type(self).__name__, "settings": self.settings, "state": self.state()}
        torch.save(content, path)


class Prior(Density):
    """The standard normal, a VAE's own prior; only the width is learned."""

    def __init__(self) -> None:
        self.width = 0

    def fit(self, latents: Tensor, seed: int) -> Prior:
        self.width = _checked(latents, 1).shape[1]
        return self

    def sample(self, n: int, seed: int) -> Tensor:
        _require(self.width > 0)
        return torch.randn(n, self.width, generator=_generator(seed))

    def state(self) -> dict[str, Tensor]:
        return {"width": torch.tensor(self.width)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.width = int(state["width"])

    @property
    def settings(self) -> dict[str, Any]:
        return {}


class Mixture(Density):
    """A mixture of normal distributions with full covariances, by expectation maximisation (scikit-learn).

    It is fitted to standardised latents: the k-means where it starts sees nothing but the widest of others.

    Args:
        components: of the mixture (C.2: 20; Ghosh et al.: 10).
        ridge: added to the diagonal of each standardised covariance, for components of few latents.

    Raises:
        ValueError: without a component.
    """

    def __init__(self, components: int = 20, ridge: float = 1e-6) -> None:
        if components < 1:
            raise ValueError(f"a mixture needs components >= 1, got {components}")
        self.components = components
        self.ridge = ridge
        self._mixture: GaussianMixture | None = None

    def fit(self, latents: Tensor, seed: int) -> Mixture:
        values = _checked(latents, max(self.components, 2)).double()
        mean, scale = values.mean(dim=0), values.std(dim=0).clamp_min(1e-12)
        fitted = GaussianMixture(self.components, reg_covar=self.ridge, random_state=seed).fit((values - mean) / scale)
        fitted.means_ = mean.numpy() + fitted.means_ * scale.numpy()
        fitted.covariances_ = fitted.covariances_ * torch.outer(scale, scale).numpy()
        self._mixture = fitted
        return self

    def sample(self, n: int, seed: int) -> Tensor:
        fitted = self._fitted
        fitted.random_state = seed
        rows, _ = fitted.sample(n)  # one component after the other
        order = np.random.RandomState(seed).permutation(n)
        return torch.from_numpy(rows[order]).float()

    def state(self) -> dict[str, Tensor]:
        fitted = self._fitted
        return {name: torch.from_numpy(getattr(fitted, f"{name}_")) for name in ("weights", "means", "covariances")}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._mixture = GaussianMixture(self.components, reg_covar=self.ridge)
        for name, value in state.items():
            setattr(self._mixture, f"{name}_", value.numpy())

    @property
    def settings(self) -> dict[str, Any]:
        return {"components": self.components, "ridge": self.ridge}

    @property
    def _fitted(self) -> GaussianMixture:
        _require(self._mixture is not None)
        assert self._mixture is not None
        return self._mixture


class LatentVAE(nn.Module):
    r"""A fully connected VAE of vectors, with a normal likelihood whose variances are learned, one for each number.

    .. math:: -\log p(x) \le \sum_j \left( \frac{(x_j - D(u)_j)^2}{2 \sigma_j^2} + \frac{1}{2} \log 2 \pi \sigma_j^2 \right)
              + \mathrm{KL}(q(u | x) \| \mathcal{N}(0, I))

    With one variance for all numbers a structure in few of them is not worth the divergence that it costs, and the posterior
    collapses. The variances start small for the same reason.

    Args:
        inputs: width d of the vectors.
        width: of the hidden layers.
        latent: width of u.
        layers: linear ones in each direction.
    """

    def __init__(self, inputs: int, width: int, latent: int, layers: int) -> None:
        super().__init__()
        self.encoder = _perceptron([inputs, *[width] * (layers - 1), 2 * latent])
        self.decoder = _perceptron([latent, *[width] * (layers - 1), inputs])
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

    The mixture is fitted to one posterior sample for each latent, which together are draws from the aggregated posterior: what
    the VAE does not use is standard normal there, where posterior means would be a point. Samples get the likelihood's noise.

    Args:
        components: of the mixture (C.2: 20).
        width: of the VAE's hidden layers (C.2: 2096).
        latent: of the VAE (C.2: 384).
        layers: fully connected ones in each direction (C.2: 4).
        steps: of Adam, one cycle.
        batch_size: latents in each, at most.
        learning_rate: its peak.

    Raises:
        ValueError: for sizes that make no network.
    """

    def __init__(
        self,
        components: int = 20,
        width: int = 2096,
        latent: int = 384,
        layers: int = 4,
        steps: int = 5000,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
    ) -> None:
        if min(width, latent, steps, batch_size) < 1 or layers < 2 or learning_rate <= 0:
            raise ValueError(
                "a VAE of latents needs width, latent, steps and batch_size >= 1, layers >= 2 and learning_rate > 0, got "
                f"{width}, {latent}, {steps}, {batch_size}, {layers} and {learning_rate}"
            )
        self.mixture = Mixture(components)
        self.width = width
        self.latent = latent
        self.layers = layers
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self._vae: LatentVAE | None = None
        self._mean = self._scale = torch.empty(0)

    def fit(self, latents: Tensor, seed: int) -> VAEMixture:
        latents = _checked(latents, max(self.mixture.components, 2)).float()
        self._mean, self._scale = latents.mean(dim=0), latents.std(dim=0).clamp_min(1e-6)
        standard = (latents - self._mean) / self._scale
        generator = _generator(seed)
        with torch.random.fork_rng(devices=[]):  # torch's initialisers know no generator
            torch.manual_seed(seed)
            self._vae = self._network(latents.shape[1])
        self._train(self._vae, standard, generator)
        with torch.no_grad():
            codes, _ = self._vae.code(standard, generator)
        self.mixture.fit(codes, seed)
        return self

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        _require(self._vae is not None)
        assert self._vae is not None
        mean = self._vae.decoder(self.mixture.sample(n, seed))
        noise = torch.randn(mean.shape, generator=_generator(seed))
        return self._mean + self._scale * (mean + (0.5 * self._vae.log_variance).exp() * noise)

    def state(self) -> dict[str, Tensor]:
        _require(self._vae is not None)
        assert self._vae is not None
        parts = {"mean": self._mean, "scale": self._scale}
        parts |= {f"mixture.{name}": value for name, value in self.mixture.state().items()}
        return parts | {f"vae.{name}": value.detach() for name, value in self._vae.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._mean, self._scale = state["mean"], state["scale"]
        self.mixture.restore(_under("mixture.", state))
        self._vae = self._network(len(self._mean))
        self._vae.load_state_dict(_under("vae.", state))

    @property
    def settings(self) -> dict[str, Any]:
        names = ("width", "latent", "layers", "steps", "batch_size", "learning_rate")
        return {"components": self.mixture.components} | {name: getattr(self, name) for name in names}

    def _network(self, inputs: int) -> LatentVAE:
        return LatentVAE(inputs, self.width, self.latent, self.layers)

    def _train(self, vae: LatentVAE, standard: Tensor, generator: torch.Generator) -> None:
        optimizer = torch.optim.Adam(vae.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps)
        size = min(self.batch_size, len(standard))
        with torch.enable_grad():
            for _ in range(self.steps):
                rows = torch.randint(len(standard), (size,), generator=generator)
                optimizer.zero_grad()
                vae.loss(standard[rows], generator).backward()
                optimizer.step()
                schedule.step()


KINDS: dict[str, type[Density]] = {"gmm": Mixture, "vae_gmm": VAEMixture, "prior": Prior}
"""Densities by their names on the command line."""


def load_density(path: Path) -> Density:
    """A density that :meth:`Density.save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no density {path}: `jiio sample` writes one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as a density: make one by `jiio sample`") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a density of this version: make one by `jiio sample`")
    kind = {cls.__name__: cls for cls in KINDS.values()}[content["kind"]]
    density = kind(**content["settings"])
    density.restore(content["state"])
    return density


def _perceptron(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _require(fitted: bool) -> None:
    if not fitted:
        raise RuntimeError("this density has no fit yet: call fit(latents, seed) first, or load one")


def _checked(latents: Tensor, least: int) -> Tensor:
    """Latents ``(N, d)`` on the host, if a density can be fitted to them."""
    if latents.ndim != 2 or len(latents) < least or not bool(torch.isfinite(latents).all()):
        raise ValueError(
            f"a density needs at least {least} latents (N, d) without NaN or Inf, got {tuple(latents.shape)}: take more images, "
            "fewer components, or a checkpoint that solves"
        )
    return latents.detach().cpu()
