"""Meta-learning with implicit gradients (Rajeswaran et al. 2019), and the conjugate gradients that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.func import grad, vjp, vmap

from experiments.baselines.fewshot.base import GradientBased
from experiments.baselines.fewshot.convnet import Conv4
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
            and few products with a badly conditioned one give little (the released code: in effect 22, at lambda = 2).
    """

    def __init__(
        self,
        net: Conv4,
        inner_rate: PositiveFloat = 0.1,
        steps: PositiveInt = 16,
        eval_steps: PositiveInt | None = None,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        proximity: PositiveFloat = 2.0,
        products: PositiveInt = 5,
        damping: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(net, inner_rate, steps, eval_steps, learning_rate, one_cycle)
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


def conjugate_gradient(product: Callable[[Tensor], Tensor], rhs: Tensor, *, max_steps: int) -> LinearSolution:
    """Conjugate gradients from u = 0 (Hestenes & Stiefel 1952), each row of rhs a system of its own.

    ``product`` is ``A u`` with a symmetric A, ``(B, N) -> (B, N)``. A row ends for good where A has no positive curvature in its
    direction; it keeps what it has.
    """
    tiny = torch.finfo(rhs.dtype).tiny
    value, residual, direction = torch.zeros_like(rhs), rhs, rhs
    squared, going = _dot(residual, residual), torch.ones_like(rhs[:, :1], dtype=torch.bool)
    for _ in range(max_steps):  # no test of convergence: the host would have to wait for it
        image = product(direction)
        curvature = _dot(direction, image)
        going = going & (curvature > 0)
        length = torch.where(going, squared / curvature.clamp_min(tiny), 0.0)
        value = value + length * direction
        residual = residual - length * image
        before, squared = squared, _dot(residual, residual)
        direction = residual + squared / before.clamp_min(tiny) * direction
    relative = residual.norm(dim=1) / rhs.norm(dim=1).clamp_min(tiny)
    return LinearSolution(value, relative, max_steps)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)
