"""Inverse problems: images from incomplete or noisy measurements (Sec. 4.2)."""

from __future__ import annotations

from typing import Protocol

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import Tensor

from jiio_lightning.core.operators import Measurement, Operator
from jiio_lightning.core.outer import DualReuse, Loss, OuterGradient
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.state import Augmented
from jiio_lightning.metrics.psnr import psnr
from jiio_lightning.models.interface import Generator
from jiio_lightning.randomness import SampleStream, sample_generators
from jiio_lightning.tasks.base import in_full_precision
from jiio_lightning.tasks.generation import check_images, difference, reconstruction_metrics
from jiio_lightning.tasks.latent_optimisation import LatentOptimisation

IMAGE_RANGE = (-1.0, 1.0)
"""Values of the images that operators and their noise are quoted for."""


class Indexed(Protocol):
    """A batch of images that knows which sample of the split each is."""

    image: Tensor
    index: Tensor


class Inverse(LatentOptimisation):
    r"""Recovers images from measurements of them, by the latent whose image has the same measurement (Eq. 22).

    .. math:: x^*, z^* = \arg\min_{x, z = f_\theta(z, x)} \| \hat y - A h_\theta(z) \|^2

    *Unsupervised* (``outer`` left out): net is a trained generator, re-used for any A without training; the checkpoint of a
    Generation (or Autoencoding) run loads as it is. *Supervised* (Eq. 24): the net is trained for one A, on

    .. math:: \min_\theta \sum_i \| y_i - h_\theta(z_i^*) \|^2

    which is not the inner loss, so that the inner dual does not give its gradient: ``outer`` says what does.

    Args:
        net: the generator.
        operator: A, with its noise.
        learning_rate: of Adam (Table 9: 1e-3).
        one_cycle: warm up and anneal over the run.
        loss_scale: factor on both losses, sums over pixels or measurements.
        outer: FixedInput (x* taken as a constant: the paper), FullKKT (through x* too), or nothing (unsupervised).
        seed: the random parts of A and the noise of a sample are a function of (seed, index), the same in every epoch.

    Raises:
        ValueError: for an outer gradient that is not of Eq. 24.
    """

    def __init__(
        self,
        net: Generator,
        operator: Operator,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        loss_scale: PositiveFloat = 1.0,
        outer: OuterGradient | None = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        if isinstance(outer, DualReuse):  # it ignores the outer loss, and would train on the measurements
            raise ValueError(
                "Inverse cannot be trained by DualReuse: the loss on clean images is not the inner loss. Set model.outer to "
                "FixedInput or FullKKT, or leave it out for a generator that is trained already"
            )
        super().__init__(net, DualReuse() if outer is None else outer, learning_rate, one_cycle, loss_scale)
        self.supervised = outer is not None
        self.operator = operator
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Refuse settings without a meaning before any work begins.

        Raises:
            ValueError: if an unsupervised task is to be trained, or the images do not span [-1, 1].
        """
        if stage == "fit" and not self.supervised:
            raise ValueError(
                "an unsupervised inverse problem has nothing to train: take the checkpoint of a generator to `jiio test "
                "--ckpt_path`, or set model.outer (FixedInput or FullKKT) to train on pairs"
            )
        given = getattr(getattr(self.trainer, "datamodule", None), "value_range", IMAGE_RANGE)
        if tuple(given) != IMAGE_RANGE:
            raise ValueError(
                f"inverse problems are stated for images in [-1, 1], the data's are in {list(given)}: set data.value_range"
            )

    @torch.no_grad()
    def at_learned_start(self, batch) -> Augmented:  # noqa: ANN001
        """x and z of a linear model of the net, which the generator's checkpoint brings, for this measurement; mu = 0."""
        measurement = self.measurement(batch)
        x, z = self.learned_start(measurement.y, measurement.apply)
        return Augmented(z, torch.zeros_like(z), x)

    def measurement(self, batch: Indexed) -> Measurement:
        """What is observed of a batch."""
        return measure(self.operator, batch, self.seed)

    def problem(self, batch) -> InnerProblem:  # noqa: ANN001
        """The squared error to the measurement, summed over its elements (Eq. 22)."""
        check_images(batch.image, self.net)
        measurement = self.measurement(batch)

        def loss(z: Tensor, x: Tensor) -> Tensor:
            gap = difference(measurement.apply(self.net.h(z)), measurement.y, "the operator's apply")
            return self.loss_scale * gap.square().flatten(1).sum(dim=1)

        return InnerProblem(self.net.f, loss)

    def outer_loss(self, batch, problem: InnerProblem) -> Loss:  # noqa: ANN001
        """The squared error to the clean image, summed over its pixels (Eq. 24)."""
        return lambda z, x: self.loss_scale * difference(self.net.h(z), batch.image).square().flatten(1).sum(dim=1)

    def training_metrics(self, batch, problem: InnerProblem, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """``error``: what is trained on, the clean error per pixel."""
        with torch.no_grad():
            clean = self.outer_loss(batch, problem)(v.z, v.x)
        return {"error": clean.mean() / self.outer_unit(batch)}

    def evaluate(self, batch, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:  # noqa: ANN001
        """As in Generation; ``psnr_input``: of the measurement as an image; ``error_inside``, ``error_outside``: of the holes."""
        return recovery_metrics(self.measurement(batch), self.net.h(z), batch.image)

    def panels(self, batch) -> dict[str, Tensor]:  # noqa: ANN001
        """The rows of a picture, as in Figures 7 to 12: corrupted, recovered, original."""
        shown = self.measurement(batch).shown
        return {"corrupted": shown, "recovered": self.reconstruct(batch), "original": batch.image}

    @in_full_precision
    def predict_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """As in Generation, and ``shown``, the measurement as an image."""
        return super().predict_step(batch, batch_idx) | {"shown": self.measurement(batch).shown}


def measure(operator: Operator, batch: Indexed, seed: int) -> Measurement:
    """What an operator sees of a batch of images; of each sample a function of (seed, index), for every task that measures."""
    # A stream of its own, and step 0 in every epoch: a sample is measured once, and the noise on latents is other noise.
    return operator(batch.image, sample_generators(seed, 0, batch.index, SampleStream.MEASUREMENT))


def recovery_metrics(measurement: Measurement, image: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The metrics of an image ``(B, C, H, W)`` that was recovered from a measurement of the target, one a sample ``(B,)``.

    Those of Generation; ``psnr_input``: of the measurement as an image; ``error_inside``, ``error_outside``: of the holes.
    """
    metrics = reconstruction_metrics(image, target)
    metrics["psnr_input"] = psnr(measurement.shown, target, data_range=2.0)
    if measurement.seen is not None:
        metrics["error_inside"] = mean_over(~measurement.seen, (image - target).square())
        metrics["error_outside"] = mean_over(measurement.seen, (image - target).square())
    return metrics


def mean_over(where: Tensor, values: Tensor) -> Tensor:
    """Mean of values ``(B, C, H, W)`` over the pixels ``(B, 1, H, W)`` that are meant, of each sample ``(B,)``."""
    count = values.shape[1] * where.flatten(1).sum(dim=1)
    return (values * where).flatten(1).sum(dim=1) / count
