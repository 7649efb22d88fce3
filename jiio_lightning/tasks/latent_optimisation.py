"""What the tasks with a latent generator share: Generation and Inverse."""

from __future__ import annotations

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor

from jiio_lightning.core.outer import OuterGradient
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.state import Augmented
from jiio_lightning.models.coordinate_generator import CoordinateGenerator
from jiio_lightning.models.interface import Generator
from jiio_lightning.starts import LinearDecoder
from jiio_lightning.tasks.base import JIIOTask, in_full_precision
from jiio_lightning.tasks.interface import LatentModel


class LatentOptimisation(JIIOTask, LatentModel):
    """x is the latent of an image, found for each image by the inner solver; h(z) is the image."""

    zoom: float = 1.0
    """Pixels along each side of an image that is predicted, for one of the net's."""

    def __init__(
        self,
        net: Generator,
        outer: OuterGradient,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        loss_scale: PositiveFloat = 1.0,
    ) -> None:
        super().__init__(outer, learning_rate, one_cycle)
        self.net = net
        self.loss_scale = loss_scale
        self.learned_start: LinearDecoder = LinearDecoder(net.latent)

    def start(self, batch) -> Augmented:  # noqa: ANN001
        """x = z = mu = 0."""
        return Augmented.start(batch.image.new_zeros(len(batch.image), self.net.latent), self.net.hidden)

    @torch.no_grad()
    def at_learned_start(self, batch) -> Augmented:  # noqa: ANN001
        """x and z of a linear model of the net, mu = 0."""
        x, z = self.learned_start(batch.image)
        return Augmented(z, torch.zeros_like(z), x)

    def examples(self, batch, start: Augmented, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """Latents, equilibria and images."""
        return {"x": v.x, "z": v.z, "image": batch.image}

    def outer_unit(self, batch) -> float:  # noqa: ANN001
        """Pixels of an image times ``loss_scale``: the penalty is weighed against a mean squared error."""
        return batch.image[0].numel() * self.loss_scale

    @in_full_precision
    @torch.no_grad()
    def reconstruct(self, batch) -> Tensor:  # noqa: ANN001
        """Feasible reconstructions ``(B, C, H, W)``."""
        _, _, z, _ = self.feasible(batch)
        return self.net.h(z)

    @in_full_precision
    @torch.no_grad()
    def encode(self, batch) -> Tensor:  # noqa: ANN001
        """Latents ``(B, d)`` of the images: x at the solution of the inner problem."""
        _, solution = self.solve(batch)
        return solution.v.x

    @in_full_precision
    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of latents ``(B, d)``: h at the equilibrium of f, solved to a tight tolerance."""
        return self._decoded(self.net, x)

    def _decoded(self, net: Generator, x: Tensor) -> Tensor:
        problem = InnerProblem(net.f, lambda z, x: z.new_zeros(len(z)))  # only its constraint matters
        z, _ = self.resolve(problem, x, net.hidden)
        return net.h(z)

    @in_full_precision
    def predict_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """``latent``, ``image``, ``error`` and ``index`` of each sample."""
        problem, solution, z, _ = self.feasible(batch)
        error = self.evaluate(batch, problem, z, solution.v.x)["error"]
        image = self.net.h(z) if self.zoom == 1 else self._decoded(self._zoomed, solution.v.x)
        return {"latent": solution.v.x, "image": image, "error": error, "index": batch.index}

    @property
    def _zoomed(self) -> CoordinateGenerator:
        """The net for images of ``zoom`` times the size."""
        channels, *sides = self.net.image_shape
        height, width = (max(1, round(self.zoom * n)) for n in sides)
        return self.net.at((channels, height, width))  # type: ignore[attr-defined]
