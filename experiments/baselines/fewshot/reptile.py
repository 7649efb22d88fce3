"""Reptile (Nichol & Schulman 2018)."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt, restricted_number_type
from torch import Tensor
from torch.func import grad, vmap

from experiments.baselines.fewshot.base import GradientBased
from experiments.baselines.fewshot.convnet import Conv4
from jiio_lightning.tasks.optimiser import run_length

DECAY, EPSILON = 0.999, 1e-8
"""Adam's, of the mean of squared gradients."""

Share = restricted_number_type("Share", float, [(">", 0), ("<=", 1)])
"""A part of the way: above 0, at most 1."""


class Reptile(GradientBased):
    r"""Reptile, Algorithm 2 (batched) of Nichol & Schulman 2018: move towards the weights that tasks end at.

    .. math:: \theta \leftarrow \theta + \epsilon \frac{1}{T} \sum_i (w_i - \theta)

    The update is a step of gradient descent on :math:`\frac{1}{2} \| \theta - w_i \|^2` with :math:`w_i` fixed; epsilon falls
    linearly to 0 over the run (released code). A task is learned from all its images, support and query, by Adam without momentum
    (beta_1 = 0, as in the released code, but afresh for each task, where that carries the mean of squares over), one minibatch of
    the task's images a step. Images are drawings in random order, so that minibatches with as many of each class in turn are
    random ones.

    Args:
        net: a classifier.
        inner_rate: of Adam (released command for transductive 5-way 1-shot Omniglot: 1e-3).
        steps: minibatches of a task in training (released command: 3).
        eval_steps: in evaluation, each with all support images (released command: 5).
        learning_rate: epsilon at the start (released command: 1).
    """

    def __init__(
        self,
        net: Conv4,
        inner_rate: PositiveFloat = 1e-3,
        steps: PositiveInt = 3,
        eval_steps: PositiveInt | None = 5,
        learning_rate: Share = 1.0,
    ) -> None:
        super().__init__(net, inner_rate, steps, eval_steps, float(learning_rate))  # a Share in a checkpoint would not be loaded

    def adapt_to(self, theta: Tensor, image: Tensor, label: Tensor, steps: int) -> Tensor:
        return self.learn(theta, image.expand(steps, *image.shape), label.expand(steps, *label.shape))

    def learn(self, theta: Tensor, image: Tensor, label: Tensor) -> Tensor:
        """theta ``(P,)`` after one step of Adam for each minibatch of images ``(S, E, C, H, W)`` with labels ``(S, E)``."""
        weights, squares = theta, torch.zeros_like(theta)
        for step in range(len(image)):
            gradient = grad(self.loss)(weights, image[step], label[step])
            squares = DECAY * squares + (1 - DECAY) * gradient.square()
            scale = (squares / (1 - DECAY ** (step + 1))).sqrt()
            weights = weights - self.inner_rate * gradient / (scale + EPSILON)
        return weights

    def outer(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Half the squared distance from theta to where the tasks end, and ``distance``."""
        with torch.no_grad():
            learned = vmap(self.learn, in_dims=(None, 0, 0))(self.theta, *self.minibatches(batch))
        value = 0.5 * (self.theta - learned).square().sum(dim=1)
        return value, {"distance": (2 * value.detach()).sqrt()}

    def minibatches(self, batch: Any) -> tuple[Tensor, Tensor]:
        """All images of the tasks dealt out to the steps ``(T, S, E, C, H, W)`` and their labels ``(T, S, E)``.

        Each minibatch has as many drawings of each class; drawings come again if they are fewer than steps.
        """
        image = self._by_drawing(batch.support, batch.query)
        label = self._by_drawing(batch.support_label, batch.query_label)
        drawings = image.shape[1]
        share = max(1, drawings // self.steps)
        dealt = (torch.arange(self.steps * share) % drawings).view(self.steps, share)
        return image[:, dealt].flatten(2, 3), label[:, dealt].flatten(2, 3)

    def _by_drawing(self, support: Tensor, query: Tensor) -> Tensor:
        """``(T, N K, ...)`` and ``(T, N Q, ...)``, both sorted by class, to ``(T, K + Q, N, ...)``."""
        ways = (self.net.num_classes, -1)
        return torch.cat([support.unflatten(1, ways), query.unflatten(1, ways)], dim=2).transpose(1, 2)

    def configure_optimizers(self) -> Any:
        """Plain gradient descent, its step size falling linearly from epsilon to 0 at the run's end."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.learning_rate)
        steps = run_length(self, "a step size that ends at 0")
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
