"""Prototypical networks (Snell et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.baselines.fewshot.base import FewShot
from experiments.baselines.fewshot.convnet import Conv4
from jiio_lightning.tasks.episodes import episode_metrics


class PrototypicalNetwork(FewShot):
    r"""Names the class whose mean embedding is nearest (Snell et al. 2017, Eq. 1-2).

    .. math:: p_n = \frac{1}{K} \sum_{k \in n} \phi(s_k), \quad \text{logits} = - \| \phi(q) - p_n \|^2

    Nothing is adapted to a task but the prototypes p, so that training tasks may have more classes than those of a test.

    Args:
        net: phi, without logits.
        learning_rate: of Adam (Snell et al.: 1e-3).
        one_cycle: warm up and anneal over the run instead of a constant rate (Snell et al.: halve it every 2000 episodes).

    Raises:
        ValueError: for a net with logits, or with batch norm by the images that are passed together.
    """

    def __init__(self, net: Conv4, learning_rate: float = 1e-3, one_cycle: bool = True) -> None:
        super().__init__(net, learning_rate, one_cycle)
        if net.num_classes is not None:
            raise ValueError("a PrototypicalNetwork compares embeddings: set model.net.num_classes to null")
        if net.norm == "episode":
            raise ValueError("a PrototypicalNetwork embeds all tasks of a batch together: set model.net.norm to running or group")

    def outer(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The query images' cross-entropy."""
        metrics = episode_metrics(self.logits(batch), batch.query_label)
        return metrics["loss"], {name: value.detach() for name, value in metrics.items()}

    def logits(self, batch: Any) -> Tensor:
        image = torch.cat([batch.support, batch.query], dim=1)
        embedding = self.net(image.flatten(0, 1)).unflatten(0, image.shape[:2])
        support, query = embedding.split([batch.support.shape[1], batch.query.shape[1]], dim=1)
        return -(query.unsqueeze(2) - prototypes(support, batch.support_label).unsqueeze(1)).square().sum(dim=3)


def prototypes(embedding: Tensor, label: Tensor) -> Tensor:
    """Mean embedding of each class ``(T, N, D)``, of embeddings ``(T, E, D)`` with labels ``(T, E)``."""
    member = F.one_hot(label).to(embedding.dtype).transpose(1, 2)  # (T, N, E)
    return member @ embedding / member.sum(dim=2, keepdim=True)
