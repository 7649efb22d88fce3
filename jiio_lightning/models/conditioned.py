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
"""Side of the maps that a learned start sees: no worse than all of z (R2 0.74, Omniglot, one last layer), 2 loses 0.08."""


class FiLMClassifier(ConditionalClassifier):
    r"""MDEQ classifier with FiLM behind the first group norm of each residual block, fed by the task vector x (C.2).

    .. math:: \text{map} \mapsto (1 + \Gamma x) \odot \text{map} + B x

    x is the last layer too (``weight_head``): as N rows X of k numbers, the whole part of d / N, it weighs k features of z,
    whose mean over the features is 0 and whose variance is 1; numbers that are left over act on the cell alone:

    .. math:: h(z, x) = X \, \psi(z) / \sqrt{k}.

    At x = 0, where every solve starts, it is the cell without FiLM, and all classes are as likely. x has natural units:
    :math:`x \sim N(0, I)` changes scale and shift by numbers of variance ``gain ** 2``, and logits by numbers of variance 1.

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
        weight_head: x is the last layer, which is not in the paper; False: a linear layer that all tasks share.

    Raises:
        ValueError: x is the last layer and has fewer than three numbers a class: what is left of so few features says nothing.
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
        gain: PositiveFloat = 0.1,
        weight_head: bool = True,
    ) -> None:
        super().__init__()
        if weight_head and task < 3 * num_classes:
            raise ValueError(f"model.net.task is {task}: a last layer of {num_classes} classes takes {3 * num_classes} at least")
        self.task = task
        self.num_classes = num_classes
        # What x does through the cell is a hash of the image in a fresh net: the logits' gradients in x of two images are all but
        # orthogonal (cosine 0.04), so that what is learned of one says nothing of the other, and training hardly leaves chance.
        # As weights of features x says the same of images that look alike; a small gain keeps it from learning by heart.
        self.weight_head = weight_head
        outputs = task // num_classes if weight_head else num_classes
        self.base = ImageClassifier(
            channels, image_shape, outputs, downscale, expansion, groups, fusion_groups, head_width, features, pool, stem
        )
        self.image_shape = self.base.image_shape
        # Without biases: at x = 0 nothing may change.
        self.film = nn.ModuleList(nn.Linear(task, 2 * expansion * width, bias=False) for width in channels)
        for linear in self.film:
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
        features = self.base.h(z)
        if not self.weight_head:
            return features
        features = F.layer_norm(features, features.shape[1:])
        weights = x[:, : self.num_classes * features.shape[1]].unflatten(1, (self.num_classes, -1))
        return torch.einsum("bnk,bk->bn", weights, features) * features.shape[1] ** -0.5
