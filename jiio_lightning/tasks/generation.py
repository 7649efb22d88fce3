"""Generative modelling by latent optimisation (Sec. 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from jiio_lightning.core.outer import DualReuse, Loss, OuterGradient
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.state import Augmented
from jiio_lightning.metrics.psnr import psnr
from jiio_lightning.models.interface import Generator
from jiio_lightning.tasks.base import JIIOTask


class Generation(JIIOTask):
    r"""Trains a decoder without an encoder: the latent of an image is the one that reconstructs it best (Eq. 20).

    .. math:: \min_\theta \sum_i \| y_i - h_\theta(z_i^*) \|^2 \quad \text{with} \quad
              x_i^*, z_i^* = \arg\min_{x, z = f_\theta(z, x)} \| y_i - h_\theta(z) \|^2

    Args:
        net: the generator.
        learning_rate: of Adam (Table 9: 1e-3).
        one_cycle: warm up and anneal over the run.
        loss_scale: factor on the inner loss, a sum over pixels. The paper's fixed steps are quoted for 1; the default step does
            not care.
        outer: outer gradient; the outer loss is the inner one, so that its dual is enough (Eq. 19).
    """

    def __init__(
        self,
        net: Generator,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        loss_scale: float = 1.0,
        outer: OuterGradient | None = None,
    ) -> None:
        super().__init__(DualReuse() if outer is None else outer, learning_rate, one_cycle)
        self.net = net
        self.loss_scale = loss_scale

    def problem(self, batch) -> InnerProblem:  # noqa: ANN001
        """The squared error to the batch's images, summed over pixels."""
        self._check(batch.image)

        def loss(z: Tensor, x: Tensor) -> Tensor:
            return self.loss_scale * (self.net.h(z) - batch.image).square().flatten(1).sum(dim=1)

        return InnerProblem(self.net.f, loss)

    def start(self, batch) -> Augmented:  # noqa: ANN001
        """x = z = mu = 0."""
        return Augmented.start(batch.image.new_zeros(len(batch.image), self.net.latent), self.net.hidden)

    def outer_loss(self, batch, problem: InnerProblem) -> Loss:  # noqa: ANN001
        """The inner loss itself."""
        return problem.loss

    def outer_unit(self, batch) -> float:  # noqa: ANN001
        """Pixels of an image times ``loss_scale``: the penalty is weighed against a mean squared error."""
        return batch.image[0].numel() * self.loss_scale

    def evaluate(self, batch, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:  # noqa: ANN001
        """``error``: squared error per pixel in the images' units; ``psnr``: in dB, for a range of 2."""
        image = self.net.h(z)
        return {
            "error": (image - batch.image).square().flatten(1).mean(dim=1),
            "psnr": psnr(image, batch.image, data_range=2.0),
        }

    @torch.no_grad()
    def reconstruct(self, batch) -> Tensor:  # noqa: ANN001
        """Feasible reconstructions ``(B, C, H, W)``."""
        _, _, z, _ = self.feasible(batch)
        with parametrize.cached():
            return self.net.h(z)

    def predict_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """``latent``, ``image``, ``error`` and ``index`` of each sample."""
        problem, solution, z, _ = self.feasible(batch)
        error = self.evaluate(batch, problem, z, solution.v.x)["error"]
        return {"latent": solution.v.x, "image": self.net.h(z), "error": error, "index": batch.index}

    def _check(self, image: Tensor) -> None:
        if tuple(image.shape[1:]) != tuple(self.net.image_shape):
            raise ValueError(
                f"the data has images of {tuple(image.shape[1:])} and the net makes {tuple(self.net.image_shape)}: "
                "set model.net.image_shape to the data's, or choose other data"
            )
