"""The MDEQ classifier of Sec. 4.3: f driven by an image, logits by a pooled head."""

from __future__ import annotations

from typing import Literal

from jsonargparse.typing import PositiveInt
from torch import Tensor

from jiio_lightning.models.head import PooledHead
from jiio_lightning.models.injection import ImageInjection
from jiio_lightning.models.interface import Classifier
from jiio_lightning.models.mdeq import MDEQCell


class ImageClassifier(Classifier):
    """MDEQ classifier: x is an image, ``inject`` a convolutional stem, h a pooled head (C.2: 2 scales, as MDEQ-small).

    Args:
        channels: of each scale, finest first (Table 9: [24, 24]).
        image_shape: ``(C, H, W)`` of the images.
        num_classes: width of the logits.
        downscale: the finest map has ``1 / downscale`` of the image's side (Table 9: 1).
        expansion: widening inside a residual block (Table 9: 5).
        groups: groups of the group norms in the residual blocks.
        fusion_groups: groups elsewhere.
        head_width: channels inside the head's bottlenecks.
        features: channels that the head pools.
        pool: side of the grid of means that it takes (1: the global mean of MDEQ).
        stem: channels between the convolutions of the stem (:class:`ImageInjection`).

    Raises:
        ValueError: if the image's side is not a multiple of downscale.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        image_shape: tuple[int, int, int],
        num_classes: PositiveInt = 10,
        downscale: Literal[1, 2, 4] = 1,
        expansion: PositiveInt = 5,
        groups: PositiveInt = 4,
        fusion_groups: PositiveInt = 8,
        head_width: PositiveInt = 16,
        features: PositiveInt = 128,
        pool: PositiveInt = 4,
        stem: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        inputs, height, width = image_shape
        self.num_classes = num_classes
        self.image_shape = (inputs, height, width)
        self.cell = MDEQCell(tuple(channels), (height // downscale, width // downscale), expansion, groups, fusion_groups)
        self.inject = ImageInjection(self.cell.pyramid, self.image_shape, downscale, fusion_groups, stem)
        self.head = PooledHead(tuple(channels), num_classes, head_width, features, fusion_groups, pool)

    @property
    def hidden(self) -> int:
        return self.cell.pyramid.numel

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return self.cell(z, self.inject(x))

    def h(self, z: Tensor) -> Tensor:
        return self.head(self.cell.pyramid.unpack(z))
