"""Generative modelling by latent optimisation (Sec. 4.1)."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat
from torch import Tensor

from jiio_lightning.core.outer import DualReuse, Loss, OuterGradient
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.metrics.psnr import SSIM_WINDOW, psnr, ssim
from jiio_lightning.models.coordinate_generator import CoordinateGenerator
from jiio_lightning.models.interface import Classifier, Generator
from jiio_lightning.tasks.latent_optimisation import LatentOptimisation


class Generation(LatentOptimisation):
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
        zoom: pixels along each side of the images that ``jiio predict`` makes, for one of the data's. Only a CoordinateGenerator
            reads latents on another grid.

    Raises:
        ValueError: for a zoom of another net.
    """

    capturable = True

    def __init__(
        self,
        net: Generator,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        loss_scale: PositiveFloat = 1.0,
        outer: OuterGradient | None = None,
        zoom: PositiveFloat = 1.0,
    ) -> None:
        if zoom != 1 and not isinstance(net, CoordinateGenerator):
            raise ValueError(f"{type(net).__name__} has images of one size: leave model.zoom at 1, or take a CoordinateGenerator")
        super().__init__(net, DualReuse() if outer is None else outer, learning_rate, one_cycle, loss_scale)
        self.zoom = float(zoom)

    def problem(self, batch) -> InnerProblem:  # noqa: ANN001
        """The squared error to the batch's images, summed over pixels."""
        check_images(batch.image, self.net)

        def loss(z: Tensor, x: Tensor) -> Tensor:
            # A sum, not a mean: the paper's fixed steps in x are quoted for it.
            return self.loss_scale * difference(self.net.h(z), batch.image).square().flatten(1).sum(dim=1)

        return InnerProblem(self.net.f, loss)

    def outer_loss(self, batch, problem: InnerProblem) -> Loss:  # noqa: ANN001
        """The inner loss itself."""
        return problem.loss

    def evaluate(self, batch, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:  # noqa: ANN001
        """``error``: squared error per pixel; ``psnr`` in dB and ``ssim`` (of images from 11x11 up): for a range of 2."""
        return reconstruction_metrics(self.net.h(z), batch.image)

    def panels(self, batch) -> dict[str, Tensor]:  # noqa: ANN001
        """The rows of a picture: original, reconstruction."""
        return {"original": batch.image, "reconstruction": self.reconstruct(batch)}


def reconstruction_metrics(image: Tensor, target: Tensor) -> dict[str, Tensor]:
    """``error``, ``psnr`` and, from 11x11 up, ``ssim`` of each sample ``(B,)``, for images ``(B, C, H, W)`` in [-1, 1]."""
    metrics = {
        "error": difference(image, target).square().flatten(1).mean(dim=1),
        "psnr": psnr(image, target, data_range=2.0),
    }
    large = min(image.shape[-2:]) >= SSIM_WINDOW
    return metrics | ({"ssim": ssim(image, target, data_range=2.0)} if large else {})


def difference(made: Tensor, wanted: Tensor, maker: str = "the net's h") -> Tensor:
    """What is made less what is wanted; a ValueError where one of another shape would be spread over the batch."""
    if made.shape != wanted.shape:
        raise ValueError(f"{maker} has to return {tuple(wanted.shape)} for a batch, not {tuple(made.shape)}")
    return made - wanted


def check_images(image: Tensor, net: Generator | Classifier) -> None:
    """Refuse, by a ValueError, images of another shape than the net's."""
    if tuple(image.shape[1:]) != tuple(net.image_shape):
        raise ValueError(
            f"the data has images of {tuple(image.shape[1:])} and the net is for {tuple(net.image_shape)}: "
            "set model.net.image_shape to the data's, or choose other data"
        )
