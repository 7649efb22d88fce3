"""The start of attacks: the perturbation that is best for a class on average."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio_lightning.starts.base import LearnedStart


class ClassPerturbation(LearnedStart):
    r"""The mean of what the solver has found for images of a class: a universal perturbation (Moosavi-Dezfooli et al. 2017) each.

    .. math:: \bar\delta_c = \frac{1}{N_c} \sum_{i : y_i = c} \delta_i^*

    Only its direction matters: an attack begins at the allowed perturbation that goes farthest in it. For a class without
    examples it begins at 0.
    """

    directions: Tensor
    """One for each class ``(num_classes, d)``."""

    def regress(self, *, x: Tensor, label: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """From perturbations ``(N, d)`` of images with labels ``(N,)``."""
        member = F.one_hot(label).to(x)
        return {"directions": (member.T @ x) / member.sum(dim=0).clamp_min(1).unsqueeze(1)}

    def forward(self, label: Tensor) -> Tensor:
        """Directions ``(B, d)`` for the classes ``(B,)``; 0 for one without examples."""
        known = label < len(self.directions)
        found = self.directions[torch.where(known, label, 0)]
        return torch.where(known.unsqueeze(1), found, 0.0)
