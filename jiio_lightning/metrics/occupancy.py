"""How well the inside of a solid is told from its outside."""

from __future__ import annotations

from torch import Tensor


def occupancy_metrics(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """``iou``, ``accuracy``, ``precision`` and ``recall`` of logits ``(N, 1)`` for a target of 0 and 1.

    Example:
        >>> import torch
        >>> metrics = occupancy_metrics(torch.tensor([[2.0], [1.0], [-1.0]]), torch.tensor([[1.0], [0.0], [1.0]]))
        >>> {name: round(value.item(), 2) for name, value in metrics.items()}
        {'iou': 0.33, 'accuracy': 0.33, 'precision': 0.5, 'recall': 0.5}
    """
    inside, true = logits > 0, target > 0.5
    both, either = (inside & true).sum(), (inside | true).sum()
    return {
        "iou": both / either.clamp_min(1),
        "accuracy": (inside == true).float().mean(),
        "precision": both / inside.sum().clamp_min(1),
        "recall": both / true.sum().clamp_min(1),
    }
