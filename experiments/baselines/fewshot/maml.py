"""Model-agnostic meta-learning (Finn et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor
from torch.func import grad

from experiments.baselines.fewshot.base import GradientBased
from experiments.baselines.fewshot.convnet import Conv4
from jiio_lightning.tasks.episodes import episode_metrics


class MAML(GradientBased):
    r"""MAML, Algorithm 2 of Finn et al. 2017.

    .. math:: \min_\theta \sum_i \ell(w_i, D_i^{query}), \quad
              w_i = \theta - \alpha \nabla \ell(\theta, D_i^{support}) \; (\text{and further steps})

    Args:
        net: a classifier.
        inner_rate: alpha (Finn et al., Omniglot 5-way: 0.4).
        steps: in training (Finn et al.: 1).
        eval_steps: in evaluation (Finn et al.: 3).
        learning_rate: of Adam (Finn et al.: 1e-3).
        one_cycle: warm up and anneal over the run instead of a constant rate (Finn et al.: constant).
        first_order: take the change of the weights as a constant, the identity as its Jacobian (FOMAML, Sec. 5.2 there).
    """

    def __init__(
        self,
        net: Conv4,
        inner_rate: PositiveFloat = 0.4,
        steps: PositiveInt = 1,
        eval_steps: PositiveInt | None = 3,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        first_order: bool = False,
    ) -> None:
        super().__init__(net, inner_rate, steps, eval_steps, learning_rate, one_cycle)
        self.first_order = first_order

    def adapt_to(self, theta: Tensor, image: Tensor, label: Tensor, steps: int) -> Tensor:
        weights = theta
        for _ in range(steps):
            weights = weights - self.inner_rate * grad(self.loss)(weights, image, label)
        return weights

    def outer(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The query images' loss at the adapted weights."""
        if self.first_order:
            with torch.no_grad():
                change = self.adapt(batch.support, batch.support_label) - self.theta
            weights = self.theta + change
        else:
            weights = self.adapt(batch.support, batch.support_label)
        metrics = episode_metrics(self.at(weights, batch.query), batch.query_label)
        return metrics["loss"], {name: value.detach() for name, value in metrics.items()}
