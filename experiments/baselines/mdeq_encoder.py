"""The MDEQ encoder of the MDEQ-VAE and MDEQ-AE baselines (C.2): image injection, MDEQ cell, pooled head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from experiments.baselines.interface import Encoder
from jiio_lightning.models.head import PooledHead
from jiio_lightning.models.injection import ImageInjection
from jiio_lightning.models.interface import Solve
from jiio_lightning.models.mdeq import MDEQCell


class MDEQEncoder(Encoder):
    """The generator's counterpart: "a similar architecture [...] except that the input injection and output layers are
    parameterized as in the [...] MDEQ classification networks" (C.2).

    The cell is driven by the injection of the image, which is computed once and not in every step of the solve.

    Args:
        latent: width d of the latents.
        channels: of each scale, finest first (Table 9).
        image_shape: ``(C, H, W)`` of the images.
        variational: give a variance to each latent too.
        downscale: the finest map has ``1 / downscale`` of the image's side.
        expansion: widening inside a residual block (Table 9: 5).
        groups: groups of the group norms in the residual blocks.
        fusion_groups: groups elsewhere.
        head_width: channels inside the head's bottlenecks.
        features: width of the pooled vector.

    Raises:
        ValueError: if the image's side is not a multiple of downscale.
    """

    def __init__(
        self,
        latent: int,
        channels: tuple[int, ...],
        image_shape: tuple[int, int, int],
        variational: bool = False,
        downscale: Literal[1, 2, 4] = 1,
        expansion: int = 5,
        groups: int = 4,
        fusion_groups: int = 8,
        head_width: int = 16,
        features: int = 128,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape
        if height % downscale or width % downscale:
            raise ValueError(f"an image of {height}x{width} cannot be divided by downscale={downscale}")
        self.latent = latent
        self.variational = variational
        self.image_shape = (inputs, height, width)
        self.cell = MDEQCell(tuple(channels), (height // downscale, width // downscale), expansion, groups, fusion_groups)
        self.inject = ImageInjection(self.cell.pyramid, self.image_shape, downscale, fusion_groups)
        self.head = PooledHead(tuple(channels), self.outputs, head_width, features, fusion_groups)

    def numbers(self, image: Tensor, solve: Solve) -> Tensor:
        """The head at the equilibrium of the cell."""
        z = solve(self.cell, self.inject(image), self.cell.pyramid.numel)
        return self.head(self.cell.pyramid.unpack(z))
