"""Meta-learning with implicit gradients (Rajeswaran et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from experiments.baselines.conjugate_gradient import conjugate_gradient
from experiments.baselines.convnet import Conv4
from experiments.baselines.fewshot.base import GradientBased
from jiio_lightning.core.gmres import LinearSolution
from jiio_lightning.tasks.episodes import episode_metrics


class ImplicitMAML(GradientBased):
    r"""iMAML, Algorithms 1 and 2 of Rajeswaran et al. 2019: the adaptation is a minimum, and how it was found does not matter.

    .. math:: w_i = \arg\min_w \ell(w, D_i^{support}) + \frac{\lambda}{2} \| w - \theta \|^2, \quad
              \nabla_\theta = \Big(I + \frac{1}{\lambda} \nabla^2 \ell(w_i, D_i^{support})\Big)^{-1} \nabla \ell(w_i, D_i^{query})

    The minimum is approached by gradient steps, the linear system by conjugate gradients.

    Args:
        net: a classifier.
        inner_rate: step size of the adaptation (Rajeswaran et al., Omniglot: 0.5; their released command: 0.1).
        steps: of the adaptation (Rajeswaran et al.: 16).
        eval_steps: in evaluation; as many unless given.
        learning_rate: of Adam (the released code: 1e-3).
        one_cycle: warm up and anneal over the run instead of a constant rate (the released code: constant).
        proximity: lambda (Rajeswaran et al.: 2).
        products: steps of conjugate gradients, a product with the Hessian each (Rajeswaran et al.: 5).
        damping: added to lambda in the linear system alone. Away from a minimum of the inner problem it can be indefinite,
            and few products with a badly conditioned one give little (the released code: in effect 22 beside lambda = 2).

    Raises:
        ValueError: if proximity or products are not positive, or damping is negative.
    """

    def __init__(
        self,
        net: Conv4,
        inner_rate: float = 0.1,
        steps: int = 16,
        eval_steps: int | None = None,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        proximity: float = 2.0,
        products: int = 5,
        damping: float = 0.0,
    ) -> None:
        super().__init__(net, inner_rate, steps, eval_steps, learning_rate, one_cycle)
        if proximity <= 0 or products < 1:
            raise ValueError(f"proximity and products are to be positive, got {proximity} and {products}")
        if damping < 0:
            raise ValueError(f"damping cannot be negative, got {damping}")
        self.proximity = proximity
        self.products = products
        self.damping = damping

    def adapt_to(self, theta: Tensor, image: Tensor, label: Tensor, steps: int) -> Tensor:
        weights = theta
        for _ in range(steps):
            pull = self.proximity * (weights - theta)
            weights = weights - self.inner_rate * (grad(self.loss)(weights, image, label) + pull)
        return weights

    def outer(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The query images' loss as a value with the implicit gradient; ``residual_outer`` is that of its linear system."""

        def query_loss(weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            metrics = episode_metrics(self.at(weights, batch.query), batch.query_label)
            return metrics["loss"].sum(), metrics  # rows of weights are independent: the gradient of the sum holds theirs

        with torch.no_grad():
            weights = self.adapt(batch.support, batch.support_label)
            gradient, metrics = grad(query_loss, has_aux=True)(weights)
            solution = self.implicit(weights, batch.support, batch.support_label, gradient)
        theta = self.theta
        value = metrics["loss"] + ((theta - theta.detach()) * solution.value).sum(dim=1)
        return value, metrics | {"residual_outer": solution.residual}

    def implicit(self, weights: Tensor, image: Tensor, label: Tensor, gradient: Tensor) -> LinearSolution:
        """u ``(T, P)`` of (I + H / lambda) u = gradient ``(T, P)``, H the support loss's Hessian at weights ``(T, P)``."""
        scale = self.proximity + self.damping
        _, hessian = vjp(lambda weights: vmap(grad(self.loss))(weights, image, label), weights)
        return conjugate_gradient(lambda u: u + hessian(u)[0] / scale, gradient, max_steps=self.products)
