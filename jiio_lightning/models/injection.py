"""How an image drives the cell: the convolutional input injection of MDEQ (Bai et al. 2020, Sec. 3.1)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from jiio_lightning.models.blocks import conv3x3, group_norm
from jiio_lightning.models.multiscale import Down, Pyramid


class ImageInjection(nn.Module):
    """Stem of an MDEQ that sees images: 3x3 - norm - ReLU - 3x3 - norm to the finest scale, and from it downwards to the others.

    The norms that end it give every sample an injection of unit variance, whatever the contrast of its image: a fresh cell is a
    contraction around it.

    Args:
        downscale: the finest map has ``1 / downscale`` of the image's side; each halving is the stride of one convolution.
        stem: widths between the stem's convolutions: n numbers make n + 1 of them; once the finest map's unless given. Where
            the image does not change during a solve the stem is evaluated once, and width costs little.

    Raises:
        ValueError: if the image's side is not ``downscale`` times that of the finest map, or too few convolutions are asked for.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        image_shape: tuple[int, int, int],
        downscale: Literal[1, 2, 4] = 1,
        groups: int = 8,
        stem: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape
        if (height, width) != tuple(side * downscale for side in pyramid.size):
            raise ValueError(f"maps of {pyramid.size} and downscale={downscale} do not fit an image of {height}x{width}")
        self.pyramid = pyramid
        self.image_shape = (inputs, height, width)
        outputs = pyramid.channels[0]
        widths = [inputs, *((outputs,) if stem is None else stem), outputs]
        strides = [min(downscale, 2), max(downscale // 2, 1), *[1] * (len(widths) - 3)]
        if len(widths) < 3:
            raise ValueError("a stem has at least two convolutions: stem needs at least one number")
        layers = [
            layer
            for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
            for layer in (conv3x3(before, after, stride=stride), group_norm(after, groups), nn.ReLU())
        ]
        self.stem = nn.Sequential(*layers[:-1])
        # MDEQ feeds the finest scale alone, so that a coarser one is driven by nothing but z itself: then the spectral radius of
        # a fresh cell is 1.1 to 1.5, with injection at each scale 0.6 to 0.8 (MNIST and CIFAR-10, Table 9's sizes).
        self.down = nn.ModuleList(Down(pyramid.channels, 0, scale, groups) for scale in range(1, len(pyramid.channels)))

    def forward(self, image: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` or ``(B, C * H * W)`` to the packed injection ``(B, n)``."""
        finest = self.stem(image.reshape(-1, *self.image_shape))
        return self.pyramid.pack([finest, *(down(finest) for down in self.down)])
