"""Autoencoders: the baselines of Tables 1 and 4 that have an encoder where JIIO solves for the latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.baselines.base import Baseline
from experiments.baselines.encoders import Encoder
from experiments.baselines.latents import Code, LatentRegularizer, Unregularised
from jiio_lightning.core.inner import SolveError
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.operators import Operator
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.models.interface import Generator
from jiio_lightning.randomness import SampleStream, sample_generators
from jiio_lightning.tasks.base import in_full_precision
from jiio_lightning.tasks.generation import check_images, reconstruction_metrics
from jiio_lightning.tasks.interface import LatentModel, Regularised
from jiio_lightning.tasks.inverse import measure, recovery_metrics


class Autoencoding(Baseline, Regularised, LatentModel):
    r"""Trains an encoder with a decoder (VAE, RAE, AE and their MDEQ versions).

    .. math:: \min_{\theta} \sum_i \| y_i - D(x_i) \|^2 + \text{(cost of the latents)}, \quad x_i \text{ from } E(\hat y_i)

    The decoder is ``net``, as in Generation: a checkpoint of this task is one of a generator for Generation and its like, which
    leave the encoder out. Equilibria in encoder and decoder are differentiated by the implicit function theorem (Eq. 7), and the
    Jacobian regularisation is for them.

    In evaluation the latent is the code's mean, and every equilibrium is solved tightly: metrics are feasible.

    Args:
        encoder: from images to latents.
        net: the decoder, an MDEQ generator or an ExplicitGenerator.
        latent_regularizer: Variational (VAE), Deterministic (RAE) or Unregularised (AE, the default).
        operator: A, with its noise: the encoder sees what is measured of an image, the target is the image itself (Eq. 23), as in
            the supervised baselines AE and MDEQ-AE of Table 4. By default the encoder sees the image.
        learning_rate: of Adam.
        one_cycle: warm up and anneal over the run.
        forward: solver of the equilibria in training; Anderson with 18 steps unless given (Table 9, T_f).
        backward: solver of their adjoints; Anderson with 20 steps unless given (Table 9, T_b).
        resolve: solver of the equilibria in evaluation.
        seed: the noise on a latent is a function of (seed, step, index), the random parts of A are one of (seed, index).

    Raises:
        ValueError: if encoder and net do not fit, or a VAE's encoder has no variances.
    """

    def __init__(
        self,
        encoder: Encoder,
        net: Generator,
        latent_regularizer: LatentRegularizer | None = None,
        operator: Operator | None = None,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        forward: FixedPoint | None = None,
        backward: FixedPoint | None = None,
        resolve: FixedPoint | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, one_cycle)
        self.latent_regularizer = latent_regularizer or Unregularised()
        _check_fit(encoder, net, self.latent_regularizer)
        self.encoder = encoder
        self.net = net
        self.operator = operator
        self.solver = forward or FixedPoint(Anderson(memory=6), 18)
        self.adjoint = backward or FixedPoint(Anderson(memory=6), 20)
        self.tight = resolve or FixedPoint(Anderson(memory=8), 100, tol=1e-5)
        self.seed = seed

    @property
    def normal_latents(self) -> bool:  # type: ignore[override]
        """Of a VAE."""
        return self.latent_regularizer.variational

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        check_images(batch.image, self.net)
        layers = Layers(self.solver, self.adjoint)
        noise = sample_generators(self.seed, self.global_step, batch.index, SampleStream.LATENT)
        code = self.encoder(self._seen(batch), layers)
        image = self.net.decode(self.latent_regularizer.latent(code, noise), layers)
        loss, metrics = self._loss(batch.image, image, code)
        metrics["residual_z"] = layers.residual(batch.image).median()
        penalty = self.regularizer.layers_penalty(self.global_step, batch.index, layers) if layers.solved else None
        if penalty is not None:
            metrics["jacobian"] = penalty.detach()
            loss = loss + penalty
        if not bool(torch.isfinite(loss)):
            raise SolveError(_not_finite(metrics))
        self.log_means("train", metrics, batch)
        return loss

    def metrics(self, batch: Any) -> dict[str, Tensor]:
        """The metrics of ``evaluate``."""
        return self.evaluate(batch)[0]

    @torch.no_grad()
    def evaluate(self, batch: Any) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Metrics of each sample by name ``(B,)``, the latents ``(B, d)`` and the reconstructions ``(B, C, H, W)``.

        The metrics are those of Generation, with an operator those of Inverse; ``latent_cost``: the regulariser's, for each
        pixel; ``resolve_residual``: the largest one of the equilibria.
        """
        check_images(batch.image, self.net)
        layers = Layers(self.tight, self.adjoint)
        with cached_weights(self):
            code = self.encoder(self._seen(batch), layers)
            image = self.net.decode(code.mean, layers)
            residual = layers.residual(image)
        if self.operator is None:
            metrics = reconstruction_metrics(image, batch.image)
        else:
            metrics = recovery_metrics(measure(self.operator, batch, self.seed), image, batch.image)
        cost = self.latent_regularizer.cost(code) / batch.image[0].numel()
        return metrics | {"latent_cost": cost, "resolve_residual": residual}, code.mean, image

    def reconstruct(self, batch: Any) -> Tensor:
        """Feasible reconstructions ``(B, C, H, W)``."""
        return self.evaluate(batch)[2]

    @torch.no_grad()
    def encode(self, batch: Any) -> Tensor:
        """Latents ``(B, d)`` of the images: the means of their codes."""
        check_images(batch.image, self.net)
        with cached_weights(self.encoder):
            return self.encoder(self._seen(batch), Layers(self.tight, self.adjoint)).mean

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of latents ``(B, d)``: h at the equilibrium of f, solved tightly."""
        with cached_weights(self.net):
            return self.net.decode(x, Layers(self.tight, self.adjoint))

    def panels(self, batch: Any) -> dict[str, Tensor]:
        """The rows of a picture: original, reconstruction; with an operator as of Inverse: corrupted, recovered, original."""
        if self.operator is None:
            return {"original": batch.image, "reconstruction": self.reconstruct(batch)}
        return {"corrupted": self._seen(batch), "recovered": self.reconstruct(batch), "original": batch.image}

    @in_full_precision
    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``latent``, ``image``, ``error`` and ``index`` of each sample."""
        metrics, latent, image = self.evaluate(batch)
        return {"latent": latent, "image": image, "error": metrics["error"], "index": batch.index}

    def _seen(self, batch: Any) -> Tensor:
        """What the encoder is shown ``(B, C, H, W)``."""
        return batch.image if self.operator is None else measure(self.operator, batch, self.seed).shown

    def _loss(self, target: Tensor, image: Tensor, code: Code) -> tuple[Tensor, dict[str, Tensor]]:
        """Error and costs for each pixel, so that the Jacobian penalty weighs what it does in Generation; and what to log."""
        pixels = target[0].numel()
        error = (image - target).square().flatten(1).mean(dim=1).mean()
        cost = self.latent_regularizer.cost(code).mean() / pixels
        loss = error + cost + self.latent_regularizer.decoder_cost(self.net) / pixels
        return loss, {"loss": loss.detach(), "error": error.detach(), "latent_cost": cost.detach()}


def _check_fit(encoder: Encoder, net: Generator, regularizer: LatentRegularizer) -> None:
    if encoder.latent != net.latent or tuple(encoder.image_shape) != tuple(net.image_shape):
        raise ValueError(
            f"model.encoder takes images of {tuple(encoder.image_shape)} to {encoder.latent} numbers and model.net makes images "
            f"of {tuple(net.image_shape)} from {net.latent}: give both the same latent and image_shape"
        )
    if encoder.variational != regularizer.variational:
        raise ValueError(
            f"model.latent_regularizer is {type(regularizer).__name__}: set model.encoder.variational to "
            f"{str(regularizer.variational).lower()}"
        )


def _not_finite(metrics: dict[str, Tensor]) -> str:
    values = ", ".join(f"{name} {float(value):.1e}" for name, value in metrics.items())
    return (
        f"the loss of a training step is not finite ({values}). If it happens at the first step, the data or the weights hold "
        "NaN or Inf: check them; else lower model.learning_rate or raise jacobian.coefficient."
    )
