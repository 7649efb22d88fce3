"""A set of images as one implicit representation: each image is a code, found jointly with its equilibrium."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from jiio_lightning.models.coordinate_nets import FilterNet
from jiio_lightning.models.grid import grid
from jiio_lightning.models.interface import Generator


class CoordinateGenerator(Generator):
    r"""A generator whose z is all pixels of an image, whose cell is shared by them, and whose x is the image's code.

    .. math:: f(z, x)_c = \phi(W (z_c + g_0(c)) + b + M x, \; g_1(c)), \qquad h(z)_c = C z_c + d

    (for one layer). Joint, Nested, learned starts and inverse problems take it as any other generator. The pixels are the points
    of a grid, which is no part of its weights: a checkpoint serves every ``image_shape``, and ``at`` reads the same codes on a
    finer grid than the one they were found on. For one layer of IMFN the image is affine in x.

    Args:
        latent: width d of x.
        cell: an IMFN or an ISIREN with ``dims: 2`` and the channels of the images; an explicit MFN or InjectedSIREN gives the
            explicit auto-decoder of the same size, which f evaluates whatever z is.
        image_shape: ``(C, H, W)`` of the images.

    Raises:
        ValueError: if cell and images do not fit.

    Example:
        >>> from jiio_lightning.models.coordinate_nets import IMFN
        >>> net = CoordinateGenerator(4, IMFN(2, 1, width=6, scale=4.0), image_shape=(1, 8, 8))
        >>> net.hidden, net.h(net.f(torch.zeros(3, net.hidden), torch.zeros(3, 4))).shape
        (384, torch.Size([3, 1, 8, 8]))
        >>> net.at((1, 16, 16)).hidden
        1536
    """

    c: Tensor  # coordinates of the pixels (H * W, 2)

    def __init__(self, latent: int, cell: FilterNet, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if (cell.dims, cell.channels) != (2, image_shape[0]):
            raise ValueError(
                f"images of {tuple(image_shape)} need a cell with dims=2 and channels={image_shape[0]}, got {cell.dims} and "
                f"{cell.channels}: set model.net.cell.dims and model.net.cell.channels"
            )
        self.latent = latent
        self.cell = cell
        self.modulate = nn.Linear(latent, cell.width, bias=False)  # M
        nn.init.normal_(self.modulate.weight, std=latent**-0.5)
        self.register_buffer("c", torch.zeros(0), persistent=False)
        self._read_on(image_shape)

    @property
    def hidden(self) -> int:
        return len(self.c) * self.cell.width

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        z = z.unflatten(1, (-1, self.cell.width))  # (B, H * W, D)
        if not self.cell.implicit:
            z = torch.zeros_like(z)
        return self.cell.f(z, self.cell.inject(self.c), self.modulate(x).unsqueeze(1)).flatten(1)

    def h(self, z: Tensor) -> Tensor:
        values = self.cell.h(z.unflatten(1, (-1, self.cell.width)))  # (B, H * W, C)
        return values.mT.unflatten(2, self.image_shape[1:])

    def at(self, image_shape: tuple[int, int, int]) -> CoordinateGenerator:
        """The same weights, shared, for images of another size."""
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other._read_on(image_shape)
        return other

    def _read_on(self, image_shape: tuple[int, int, int]) -> None:
        self.image_shape = tuple(image_shape)
        self.c = grid(self.image_shape[1:]).to(self.modulate.weight)
