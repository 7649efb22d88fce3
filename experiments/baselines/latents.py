"""Codes of images, and what regularises them in training: the ELBO, the RAE's penalties, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn


@dataclass(frozen=True)
class Code:
    """What an encoder says of the latents of its images."""

    mean: Tensor  # the latents, or the means of their posteriors (B, d)
    log_variance: Tensor | None = None  # (B, d) of the posteriors, normal with diagonal covariances; None for points


class LatentRegularizer(ABC):
    """Which latent is decoded in training, and what code and decoder cost.

    Costs have the unit of the squared error *summed* over pixels and channels of an image in [-1, 1].
    """

    variational: bool = False  # whether it needs a code with variances

    def latent(self, code: Code, generators: Sequence[torch.Generator]) -> Tensor:
        """The latent that is decoded ``(B, d)``, by default the mean; one generator a sample for noise."""
        return code.mean

    @abstractmethod
    def cost(self, code: Code) -> Tensor:
        """Cost of each sample's code ``(B,)``."""

    def decoder_cost(self, decoder: nn.Module) -> Tensor | float:
        """Cost of the decoder's weights, a scalar."""
        return 0.0


class Unregularised(LatentRegularizer):
    """An autoencoder (AE): nothing but the reconstruction."""

    def cost(self, code: Code) -> Tensor:
        """0."""
        return code.mean.new_zeros(len(code.mean))


class Deterministic(LatentRegularizer):
    r"""The regularised autoencoder RAE-L2 (Ghosh et al. 2020, Eq. 9 to 11).

    .. math:: \| y - D(x) \|^2 + \frac{\beta}{2} \| x \|^2 + \lambda \| \theta_D \|^2

    Their code has weights for errors of images in [0, 1], averaged over pixels, and for the mean of x^2; here the error is a sum
    and the images are in [-1, 1]: times ``4 * pixels``, and the latent's times ``2 / d`` as well.

    Args:
        latent: beta.
        decoder: lambda, on all weights of the decoder that are matrices or kernels.
    """

    def __init__(self, latent: NonNegativeFloat, decoder: NonNegativeFloat) -> None:
        self.beta = latent
        self.decoder = decoder

    def cost(self, code: Code) -> Tensor:
        """The latent's part."""
        return self.beta / 2 * code.mean.square().sum(dim=1)

    def decoder_cost(self, decoder: nn.Module) -> Tensor | float:
        """The decoder's part."""
        return self.decoder * torch.stack([w.square().sum() for w in decoder.parameters() if w.ndim > 1]).sum()


class Variational(LatentRegularizer):
    r"""The variational autoencoder (Kingma & Welling 2014): the negative ELBO times :math:`2 \sigma^2`.

    .. math:: \mathbb{E}_{x \sim q} \| y - D(x) \|^2 + \beta \, \mathrm{KL}(q \| \mathcal{N}(0, I)), \quad
              \beta = 2 \sigma^2, \quad q = \mathcal{N}(m(y), \mathrm{diag}(v(y)))

    with a normal likelihood of standard deviation :math:`\sigma` a pixel, the expectation by one reparametrised sample. The
    code needs variances.

    Args:
        beta: weight of the KL divergence; for a weight of 0 use Unregularised.
    """

    variational = True

    def __init__(self, beta: PositiveFloat = 1.0) -> None:
        self.beta = beta

    def latent(self, code: Code, generators: Sequence[torch.Generator]) -> Tensor:
        """``m + sqrt(v) eps``, eps standard normal from each sample's own generator."""
        rows = [torch.randn(code.mean.shape[1], generator=generator) for generator in generators]
        return code.mean + (0.5 * code.log_variance).exp() * torch.stack(rows).to(code.mean)

    def cost(self, code: Code) -> Tensor:
        r""":math:`\beta` times the KL divergence, :math:`\frac{1}{2} \sum_j (m_j^2 + v_j - 1 - \log v_j)`."""
        terms = code.mean.square() + code.log_variance.exp() - 1 - code.log_variance
        return self.beta * (0.5 * terms.sum(dim=1))
