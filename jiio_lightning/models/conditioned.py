"""The classifier of few-shot tasks: an MDEQ whose residual blocks are modulated by a task vector (B.1, C.2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from jiio_lightning.models.blocks import FiLM
from jiio_lightning.models.classifier import ImageClassifier
from jiio_lightning.models.interface import ConditionalClassifier

SUMMARY = 4
"""Side of the maps that a learned start sees: no worse than all of z (R2 0.74 on Omniglot), 2 loses 0.08."""


class FiLMClassifier(ConditionalClassifier):
    r"""MDEQ classifier with FiLM behind the first group norm of each residual block, fed by the task vector x (C.2).

    .. math:: \text{map} \mapsto (1 + \Gamma x) \odot \text{map} + B x

    At x = 0, where every solve starts, it is the classifier without FiLM. x has natural units: :math:`x \sim N(0, I)` changes
    scale and shift by numbers of variance ``gain ** 2``.

    Args:
        task: width d of x (C.2: 400).
        channels: of each scale, finest first (Table 9: [64, 128]); this and what follows as in :class:`ImageClassifier`.
        image_shape: ``(C, H, W)`` of the images.
        num_classes: N of the tasks.
        downscale: the finest map has ``1 / downscale`` of the image's side (Table 9: 1).
        expansion: widening inside a residual block (Table 9: 5).
        groups: groups of the group norms in the residual blocks (Table 9: 8).
        fusion_groups: groups elsewhere.
        head_width: channels inside the head's bottlenecks.
        features: channels that the head pools.
        pool: side of the grid of means that it takes.
        stem: channels between the convolutions of the stem.
        gain: standard deviation of what a unit x does to a scale or a shift of a fresh net.
        film_head: scale the pooled features before the last layer by :math:`1 + \Gamma' x` as well, which is not in the paper.
    """

    def __init__(
        self,
        task: PositiveInt,
        channels: tuple[int, ...],
        image_shape: tuple[int, int, int],
        num_classes: PositiveInt = 5,
        downscale: Literal[1, 2, 4] = 1,
        expansion: PositiveInt = 5,
        groups: PositiveInt = 8,
        fusion_groups: PositiveInt = 8,
        head_width: PositiveInt = 16,
        features: PositiveInt = 128,
        pool: PositiveInt = 4,
        stem: tuple[int, ...] | None = None,
        gain: PositiveFloat = 1.0,
        film_head: bool = True,
    ) -> None:
        super().__init__()
        self.task = task
        self.num_classes = num_classes
        self.base = ImageClassifier(
            channels, image_shape, num_classes, downscale, expansion, groups, fusion_groups, head_width, features, pool, stem
        )
        self.image_shape = self.base.image_shape
        # Without biases: at x = 0 nothing may change.
        self.film = nn.ModuleList(nn.Linear(task, 2 * expansion * width, bias=False) for width in channels)
        # What x does through the cell is a hash of the image in a fresh net: the logits' gradients in x of two images are all but
        # orthogonal (cosine 0.04), so that what is learned of one says nothing of the other. Through the features the cosine is
        # 0.4, and training leaves chance within its first steps.
        self.film_head = nn.Linear(task, self.base.head.linear.in_features, bias=False) if film_head else None
        for linear in [*self.film, self.film_head]:
            if linear is not None:
                nn.init.normal_(linear.weight, std=gain * task**-0.5)

    @property
    def hidden(self) -> int:
        return self.base.hidden

    def summary(self, z: Tensor) -> Tensor:
        """The maps of z, those above 4x4 averaged to it."""
        maps = self.base.cell.pyramid.unpack(z)
        return torch.cat(
            [F.adaptive_avg_pool2d(scale, [min(side, SUMMARY) for side in scale.shape[-2:]]).flatten(1) for scale in maps], dim=1
        )

    def inject(self, image: Tensor) -> Tensor:
        return self.base.inject(image)

    def f(self, z: Tensor, x: Tensor, injection: Tensor) -> Tensor:
        changes = (linear(x).chunk(2, dim=1) for linear in self.film)
        return self.base.cell(z, injection, [FiLM(1 + scale, shift) for scale, shift in changes])

    def h(self, z: Tensor, x: Tensor) -> Tensor:
        head = self.base.head
        pooled = head.pooled(self.base.cell.pyramid.unpack(z))
        return head.linear(pooled if self.film_head is None else pooled * (1 + self.film_head(x)))
