"""How far the gradient that re-uses mu (Eq. 19) is from the one with mu refined, while a network trains."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from jiio_lightning.core.outer import DualReuse
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.tasks.base import JIIOTask


class DualDrift(Callback):
    """Logs ``train/dual_cosine`` and ``train/dual_length``: angle and length of the dual-reuse gradient against the refined one.

    The paper's code refines mu before it uses it; Eq. 19 uses it as it is. Each measurement re-solves one batch, so that
    training itself stays as it was.

    Args:
        every: training steps between two measurements.
        refine: solver of Eq. 9 for the refined mu.
    """

    def __init__(self, every: int = 25, refine: FixedPoint | None = None) -> None:
        self.every = every
        self.refine = FixedPoint(Anderson(memory=8), max_steps=60, tol=1e-5) if refine is None else refine

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure before the step, at the weights that it will use."""
        if trainer.global_step % self.every or not isinstance(pl_module, JIIOTask):
            return
        with cached_weights(pl_module):
            problem = pl_module.problem(batch)
            v = pl_module.inner(problem, pl_module.start(batch)).v
            reused = self._gradient(pl_module, problem, v, DualReuse())
            refined = self._gradient(pl_module, problem, v, DualReuse(refine=self.refine))
        cosine = torch.nn.functional.cosine_similarity(reused, refined, dim=0)
        length = torch.linalg.vector_norm(reused) / torch.linalg.vector_norm(refined)
        pl_module.log_dict({"train/dual_cosine": cosine, "train/dual_length": length})

    @staticmethod
    def _gradient(task: JIIOTask, problem: InnerProblem, v: Augmented, outer: DualReuse) -> Tensor:
        """Gradient of the mean surrogate with respect to all weights, as one vector; the weights' own ``grad`` is untouched."""
        weights = [weight for weight in task.parameters() if weight.requires_grad]
        value = outer.surrogate(problem, problem.loss, v).value.mean()
        pulled = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
        return parameters_to_vector(pulled)
