"""The start of task vectors: a ridge regression from what the net sees in the support set."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import RidgeCV  # type: ignore[import-untyped]
from torch import Tensor

from jiio_lightning.starts.base import LearnedStart

STRENGTHS = np.logspace(0, 5, 11)
"""Strengths of the ridge to choose from, for standardised features."""


class TaskVector(LearnedStart):
    r"""Task vectors by ridge regression from features of the support set, :math:`x_0 = W \phi + w`.

    The features :math:`\phi` are summaries of the support images' equilibria at x = 0, which every solve of a task vector
    computes anyway, averaged over the images of a class, in the order of the labels. The strength of the ridge is chosen by the
    leave-one-out error.
    """

    least = 32
    weight: Tensor
    """W ``(k, d)``."""
    bias: Tensor
    """w ``(d,)``."""

    def regress(self, *, x: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """From task vectors ``(T, d)`` and features ``(T, k)``."""
        centre, spread = features.mean(dim=0), features.std(dim=0)
        spread = spread.clamp_min(1e-3 * float(spread.max()) + torch.finfo(spread.dtype).tiny)
        ridge = RidgeCV(alphas=STRENGTHS).fit(((features - centre) / spread).cpu().numpy(), x.cpu().numpy())
        weight = torch.as_tensor(ridge.coef_).T.to(x) / spread.unsqueeze(1)
        return {"weight": weight.contiguous(), "bias": torch.as_tensor(ridge.intercept_).to(x) - centre @ weight}

    def forward(self, features: Tensor) -> Tensor:
        """Task vectors ``(T, d)``."""
        return torch.addmm(self.bias, features, self.weight)


def class_means(features: Tensor, label: Tensor) -> Tensor:
    """Means of features ``(T, E, k)`` over each class ``(T, N k)``, side by side in the order of the labels ``(T, E)``."""
    member = torch.nn.functional.one_hot(label).to(features)
    means = torch.einsum("tek,ten->tnk", features, member) / member.sum(dim=1).clamp_min(1).unsqueeze(2)
    return means.flatten(1)
