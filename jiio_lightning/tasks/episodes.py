"""What is asked of a method of few-shot learning: episodes that fit its net, and the metrics of each task."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor


class EpisodeNet(Protocol):
    """What a net says about the episodes it is made for."""

    image_shape: tuple[int, int, int]
    num_classes: int | None  # None: any number


def episode_metrics(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """``accuracy``, the share of right images, and ``loss``, mean cross-entropy, each ``(T,)``.

    Logits are ``(T, E, N)`` of the E images of T tasks, labels ``(T, E)``.
    """
    right = logits.argmax(dim=2) == label
    loss = F.cross_entropy(logits.transpose(1, 2), label, reduction="none")
    return {"accuracy": right.to(logits.dtype).mean(dim=1), "loss": loss.mean(dim=1)}


def check_episodes(batch: Any, net: EpisodeNet) -> None:
    """Refuse, by a ValueError, episodes whose images or number of classes do not fit the net."""
    shape, ways = tuple(batch.support.shape[2:]), int(batch.support_label.max()) + 1
    if shape != tuple(net.image_shape):
        raise ValueError(f"the episodes have images of {shape}: set model.net.image_shape to it, it is {net.image_shape}")
    if net.num_classes is not None and ways != net.num_classes:
        raise ValueError(f"the episodes have {ways} classes: set model.net.num_classes to it, it is {net.num_classes}")
