"""What the methods of few-shot learning share: the path of a batch of tasks, and weights that are adapted to each."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, vmap

from experiments.baselines.base import Baseline
from experiments.baselines.fewshot.convnet import Conv4
from jiio_lightning.tasks.base import in_full_precision
from jiio_lightning.tasks.episodes import check_episodes, episode_metrics


class FewShot(Baseline):
    """Learns from many small tasks to learn a new one."""

    def __init__(self, net: Conv4, learning_rate: float = 1e-3, one_cycle: bool = True) -> None:
        super().__init__(learning_rate, one_cycle)
        self.net = net

    @abstractmethod
    def outer(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """A value ``(T,)`` whose gradient trains the weights, and metrics of the tasks to log, each ``(T,)``, without a graph."""

    @abstractmethod
    def logits(self, batch: Any) -> Tensor:
        """Logits ``(T, N Q, N)`` of the query images, of which only the support images' labels are used."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        check_episodes(batch, self.net)
        value, metrics = self.outer(batch)
        self.log_means("train", metrics, batch)
        return value.mean()

    def metrics(self, batch: Any) -> dict[str, Tensor]:
        """``accuracy`` and ``loss`` of each task's query images."""
        return episode_metrics(self._judged(batch), batch.query_label)

    @in_full_precision
    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``logits`` ``(T, N Q, N)`` of the query images and ``index``."""
        return {"logits": self._judged(batch), "index": batch.index}

    @torch.no_grad()
    def _judged(self, batch: Any) -> Tensor:
        check_episodes(batch, self.net)
        return self.logits(batch)


class GradientBased(FewShot):
    r"""A method that adapts all weights of the net to a task by gradient steps on its support images.

    .. math:: w_i = \text{Alg}(\theta, D_i^{support}), \quad \text{then } \ell(w_i, D_i^{query})

    Weights are one vector: theta is ``(P,)``, those adapted to T tasks are ``(T, P)``. Tasks are independent of each other, and
    are vectorised (torch.func.vmap). The adaptation takes ``steps`` in training and, unless ``eval_steps`` says otherwise, as
    many in evaluation.

    Raises:
        ValueError: for a net without logits or with running statistics.
    """

    def __init__(
        self,
        net: Conv4,
        inner_rate: PositiveFloat,
        steps: PositiveInt,
        eval_steps: PositiveInt | None = None,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
    ) -> None:
        super().__init__(net, learning_rate, one_cycle)
        name = type(self).__name__
        if net.num_classes is None:
            raise ValueError(f"{name} adapts a classifier: set model.net.num_classes to the ways of the episodes")
        if net.norm == "running":
            raise ValueError(f"{name} has no running statistics, tasks are independent: set model.net.norm to episode or group")
        self.inner_rate = inner_rate
        self.steps = steps
        self.eval_steps = eval_steps or steps
        self._shapes = {name: weight.shape for name, weight in net.named_parameters()}

    @abstractmethod
    def adapt_to(self, theta: Tensor, image: Tensor, label: Tensor, steps: int) -> Tensor:
        """theta ``(P,)`` adapted to the images ``(E, C, H, W)`` of one task with labels ``(E,)``."""

    def adapt(self, image: Tensor, label: Tensor) -> Tensor:
        """Weights ``(T, P)`` adapted to images ``(T, E, C, H, W)`` with labels ``(T, E)``, by as many steps as the mode has."""
        steps = self.steps if self.training else self.eval_steps
        return vmap(lambda image, label: self.adapt_to(self.theta, image, label, steps))(image, label)

    def logits(self, batch: Any) -> Tensor:
        return self.at(self.adapt(batch.support, batch.support_label), batch.query)

    @property
    def theta(self) -> Tensor:
        """The weights of the net as one vector ``(P,)``, differentiable."""
        return nn.utils.parameters_to_vector(self.net.parameters())

    def at(self, weights: Tensor, image: Tensor) -> Tensor:
        """Logits ``(T, E, N)`` at weights ``(T, P)`` of images ``(T, E, C, H, W)``, the images of a task passed together."""
        return vmap(self._logits)(weights, image)

    def loss(self, weights: Tensor, image: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy, a scalar, at weights ``(P,)`` of the images of one task."""
        return F.cross_entropy(self._logits(weights, image), label)

    def _logits(self, weights: Tensor, image: Tensor) -> Tensor:
        pieces = weights.split([shape.numel() for shape in self._shapes.values()])
        named = {name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}
        return functional_call(self.net, named, (image,))
