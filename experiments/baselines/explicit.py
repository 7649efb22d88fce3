"""An explicit network as the DEQ that it trivially is, so that every task and solver takes it without a special case."""

from __future__ import annotations

from math import prod

from torch import Tensor

from experiments.baselines.interface import Decoder
from jiio_lightning.models.interface import Generator, Solve


class ExplicitGenerator(Generator):
    r"""A decoder D as an equilibrium that does not depend on z.

    .. math:: f(z, x) = D(x), \quad J_z = 0, \quad h(z) = z

    Its forward and its adjoint solve are over after one step. Our solvers return an iterate at which they have evaluated f, so
    that they need a budget of 2: one evaluation finds z = D(x), one is there (``conf/solver/nested_explicit.yaml``).

    Args:
        decoder: D, latents to images in [-1, 1].
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent = decoder.latent
        self.image_shape = decoder.image_shape

    @property
    def hidden(self) -> int:
        return prod(self.image_shape)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        """D(x) as ``(B, C * H * W)``, whatever z."""
        return self.decoder(x).flatten(1)

    def h(self, z: Tensor) -> Tensor:
        """z as an image."""
        return z.unflatten(1, self.image_shape)

    def decode(self, x: Tensor, solve: Solve) -> Tensor:
        """D(x): there is nothing to solve."""
        return self.decoder(x)
