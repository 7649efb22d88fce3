"""What keeps the latents of an autoencoder in order while it is trained: the ELBO, the RAE's penalties, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.baselines.interface import Code


class LatentRegularizer(ABC):
    """Which latent stands for a code in training, and what code and decoder cost.

    Costs have the unit of the squared error *summed* over pixels and channels of an image in [-1, 1].

    Attributes:
        variational: whether it needs a code with variances.
    """

    variational: bool

    def latent(self, code: Code, generators: Sequence[torch.Generator]) -> Tensor:
        """The latent that is decoded ``(B, d)``: the mean unless told; one generator a sample is there for noise."""
        return code.mean

    @abstractmethod
    def cost(self, code: Code) -> Tensor:
        """Of each sample's code ``(B,)``."""

    def decoder_cost(self, decoder: nn.Module) -> Tensor | float:
        """Of the decoder's weights, a scalar."""
        return 0.0


class Unregularised(LatentRegularizer):
    """An autoencoder (AE): nothing but the reconstruction."""

    variational = False

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

    Raises:
        ValueError: if one is negative.
    """

    variational = False

    def __init__(self, latent: float, decoder: float) -> None:
        if min(latent, decoder) < 0:
            raise ValueError(f"Deterministic needs latent >= 0 and decoder >= 0, got {latent} and {decoder}")
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

    with a normal likelihood of standard deviation :math:`\sigma` a pixel, the expectation by one reparametrised sample.

    Args:
        beta: weight of the KL divergence.

    Raises:
        ValueError: if it is not positive.
    """

    variational = True

    def __init__(self, beta: float = 1.0) -> None:
        if beta <= 0:
            raise ValueError(f"Variational needs beta > 0, got {beta}: without it, use Unregularised")
        self.beta = beta

    def latent(self, code: Code, generators: Sequence[torch.Generator]) -> Tensor:
        """``m + sqrt(v) eps``, eps standard normal from each sample's own generator."""
        rows = [torch.randn(code.mean.shape[1], generator=generator) for generator in generators]
        return code.mean + (0.5 * _log_variance(code)).exp() * torch.stack(rows).to(code.mean)

    def cost(self, code: Code) -> Tensor:
        r""":math:`\beta` times :func:`kl_divergence`."""
        return self.beta * kl_divergence(code)


def kl_divergence(code: Code) -> Tensor:
    r"""From the posteriors to the standard normal, in nats.

    .. math:: \frac{1}{2} \sum_j (m_j^2 + v_j - 1 - \log v_j)

    Args:
        code: with variances.

    Returns:
        ``(B,)``.
    """
    log_variance = _log_variance(code)
    return 0.5 * (code.mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def _log_variance(code: Code) -> Tensor:
    if code.log_variance is None:
        raise ValueError("the code has no variances: Variational needs an encoder with variational: true")
    return code.log_variance
