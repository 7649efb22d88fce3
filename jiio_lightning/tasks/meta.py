"""Few-shot classification by a task vector that the support set determines (Sec. 4.4, B.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jsonargparse.typing import NonNegativeFloat
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell
from jiio_lightning.core.inner import InnerSolution
from jiio_lightning.core.outer import FixedInput, FullKKT, Loss, Surrogate
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.state import Augmented
from jiio_lightning.models.interface import ConditionalClassifier
from jiio_lightning.starts import TaskVector
from jiio_lightning.starts.task_vector import class_means
from jiio_lightning.tasks.base import JIIOTask, in_full_precision, trusted_rows
from jiio_lightning.tasks.episodes import check_episodes, episode_metrics

UNSOLVED = 0.3
"""Relative residual of Eq. 17 above which its solution means little: such a task gives the gradient with x* held fixed."""


class MetaLearning(JIIOTask):
    r"""Trains a net to be adapted by one vector x a task (Eq. 28-29).

    .. math:: \min_\theta \sum_i \ell^{query}(z_i, x_i^*) \quad \text{with} \quad
              x_i^* = \arg\min_{x, z = f_\theta(z, x)} \frac{1}{NK} \sum_k \ell(h_\theta(z_k), y_k)
              + \frac{\lambda}{d} \| x \|^2

    A row of the inner problem is a task: x is ``(T, d)``, z the equilibria of all its images side by side, ``(T, E n)``. Without
    the penalty cross-entropy on separable images has no finite minimiser (the released code adds it, the paper does not say so).

    The inner problem holds the support images; those that are asked about follow at x*, where their equilibria are solved. The
    query loss is not the inner loss; its gradient has two parts:

    * with x* held fixed, by the adjoint of the query images' equilibria (``outer``; all that the paper takes),
    * through x* (``through_input``; the paper could not take it for "very poor conditioning"): the full KKT gradient of the
      support set's problem, whose outer loss is the first part's gradient in x. A task whose linear system is not solved
      (``UNSOLVED``) goes without it.

    Args:
        net: the classifier.
        outer: the part with x* held fixed.
        through_input: the part through x*; left out unless given.
        learning_rate: of Adam (Table 9: 1e-3).
        one_cycle: warm up and anneal over the run.
        penalty: lambda, on the mean square of x; the other term is a mean of cross-entropies (the released code: 1).
        support_weight: w of a term w times the inner optimum in the outer loss, which rewards a net that can be adapted; its
            gradient is Eq. 19's and costs nothing (the paper: 0).
        queries: solver of the query images' equilibria at x* in training; Anderson, 18 steps (Table 9), unless given.
        warm: solves z at x = 0 before each inner solve; Anderson, 6 steps, unless given.
    """

    capturable = True

    def __init__(
        self,
        net: ConditionalClassifier,
        outer: FixedInput,
        through_input: FullKKT | None = None,
        learning_rate: float = 1e-3,
        one_cycle: bool = True,
        penalty: NonNegativeFloat = 1.0,
        support_weight: NonNegativeFloat = 0.0,
        queries: FixedPoint | None = None,
        warm: FixedPoint | None = None,
    ) -> None:
        super().__init__(outer, learning_rate, one_cycle)
        self._warned = False
        self.net = net
        self.fixed_input = outer
        self.through_input = through_input
        self.penalty = penalty
        self.support_weight = support_weight
        self.queries = FixedPoint(Anderson(memory=6), max_steps=18) if queries is None else queries
        self.warm = FixedPoint(Anderson(memory=6), max_steps=6) if warm is None else warm
        self.learned_start: TaskVector = TaskVector()

    def problem(self, batch) -> InnerProblem:  # noqa: ANN001
        """The support set's mean cross-entropy and the penalty on x, one row a task."""
        if self.may_wait:
            check_episodes(batch, self.net)
        label = batch.support_label

        def loss(z: Tensor, x: Tensor) -> Tensor:
            return self._metrics(z, x, label)["loss"] + self.penalty * x.square().mean(dim=1)

        return InnerProblem(packed(self.net, batch.support), loss)

    def start(self, batch) -> Augmented:  # noqa: ANN001
        """x = mu = 0, and z the support images' equilibria there, roughly."""
        tasks, images = batch.support_label.shape
        start = Augmented.start(batch.support.new_zeros(tasks, self.net.task), images * self.net.hidden)
        # At z = 0 the group norms of the head see maps without variance: once their biases have moved, dl/dz is 10^5 times what
        # it is at an equilibrium (from the first step in x on), mu takes it up, and a step that looks back on its gradients
        # never recovers. With one last layer for all tasks training from z = 0 stayed at chance.
        with torch.no_grad():
            f = packed(self.net, batch.support)
            return replace(start, z=self.warm(lambda z: f(z, start.x), start.z).value)

    @torch.no_grad()
    def at_learned_start(self, batch) -> Augmented:  # noqa: ANN001
        """x by regression from the support images' equilibria at x = 0, and z as it is there; mu = 0."""
        start = self.start(batch)
        return replace(start, x=self.learned_start(self._seen(batch, start)))

    @torch.no_grad()
    def examples(self, batch, start: Augmented, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """Task vectors, and what the net saw at x = 0."""
        return {"x": v.x, "features": self._seen(batch, start)}

    def _seen(self, batch, start: Augmented) -> Tensor:  # noqa: ANN001
        """Summaries of the support images' z ``(T, E n)``, averaged over the images of a class ``(T, N k)``."""
        each = self.net.summary(start.z.reshape(-1, self.net.hidden))
        return class_means(each.unflatten(0, batch.support_label.shape), batch.support_label)

    def outer_loss(self, batch, problem: InnerProblem) -> Loss:  # noqa: ANN001
        """The mean cross-entropy of the query images, of their own z."""
        return lambda z, x: self._metrics(z, x, batch.query_label)["loss"]

    @torch.no_grad()
    def follow(self, batch, x: Tensor) -> tuple[Augmented, Tensor]:  # noqa: ANN001
        """The equilibria of the query images at x* ``(T, d)``, with mu = 0, and their relative residual ``(T,)``."""
        f = packed(self.net, batch.query)  # without a graph; outer_gradient makes the one that is trained
        start = Augmented.start(x, batch.query_label.shape[1] * self.net.hidden)
        solution = self.queries(lambda z: f(z, x), start.z)
        return replace(start, z=solution.value), solution.residual

    def outer_gradient(self, batch, problem: InnerProblem, solution: InnerSolution) -> Surrogate:  # noqa: ANN001
        """Both parts, and the term of the inner optimum; 0 for tasks of which support or query images are not trusted.

        Logs ``accuracy`` and ``loss`` of the query images, and relative residuals: ``residual_followed`` of their z,
        ``residual_adjoint`` of the part with x* held fixed, ``residual_through`` of the part through x* (Eq. 17).
        """
        at_query, residual = self.follow(batch, solution.v.x)
        trusted = self.injected.trusted(solution) & (residual < self.injected.trust_tol)
        v, at_query = trusted_rows(solution.v, trusted), trusted_rows(at_query, trusted)
        loss = self.outer_loss(batch, problem)
        query = InnerProblem(packed(self.net, batch.query), loss)
        surrogate, gradient = self.fixed_input.with_input(query, loss, at_query)
        value = surrogate.value
        if self.support_weight:
            value = value + self.support_weight * problem.lagrangian(v)
        metrics = {"residual_followed": residual.median(), "residual_adjoint": surrogate.residual.median()}
        if self.through_input is not None:
            surrogate = self.through_input.surrogate(problem, lambda z, x: (gradient * x).sum(dim=1), v)
            value = value + torch.where(surrogate.residual < UNSOLVED, surrogate.value, 0.0)
            metrics["residual_through"] = surrogate.residual.median()
            self._warn_of_conditioning(metrics["residual_through"])
        with torch.no_grad():
            metrics |= {name: value.mean() for name, value in self._metrics(at_query.z, at_query.x, batch.query_label).items()}
        self._log("train", metrics, len(batch.index))
        return Surrogate(value * trusted)

    def _warn_of_conditioning(self, residual: Tensor) -> None:
        """Once, of a linear system whose answer is no answer."""
        if self.may_wait and not self._warned and residual > UNSOLVED:
            self._warned = True
            rank_zero_warn(
                f"the gradient through x* is not solved: Eq. 17 has a median residual of {float(residual):.2g}, and tasks "
                f"above {UNSOLVED:g} go without it. Raise model.through_input.memory or .ridge"
            )

    def training_metrics(self, batch, problem: InnerProblem, v: Augmented) -> dict[str, Tensor]:  # noqa: ANN001
        """``support_accuracy``, and ``length``, the root mean square of x."""
        with torch.no_grad():
            accuracy = self._metrics(v.z, v.x, batch.support_label)["accuracy"]
        return {"support_accuracy": accuracy.mean(), "length": v.x.square().mean().sqrt()}

    def evaluate(self, batch, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:  # noqa: ANN001
        """``accuracy`` and ``loss`` of each task's query images, their z solved tightly at x; the same of its support set."""
        asked, residual = self._asked(batch, x)
        support = self._metrics(z, x, batch.support_label)
        metrics = self._metrics(asked, x, batch.query_label) | {"query_residual": residual}
        return metrics | {f"support_{name}": value for name, value in support.items()}

    @torch.no_grad()
    @in_full_precision
    def predict_step(self, batch, batch_idx: int) -> dict[str, Tensor]:  # noqa: ANN001
        """``logits`` ``(T, N Q, N)`` of the query images, ``support_accuracy``, the task vector ``x`` and ``index``."""
        _, solution, z, _ = self.feasible(batch)
        x = solution.v.x
        asked, _ = self._asked(batch, x)
        support = self._metrics(z, x, batch.support_label)["accuracy"]
        return {"logits": self._logits(asked, x), "support_accuracy": support, "x": x, "index": batch.index}

    def _asked(self, batch, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN001
        """z of the query images, solved tightly at x, and its relative residual."""
        problem = InnerProblem(packed(self.net, batch.query), lambda z, x: z.new_zeros(len(z)))
        return self.resolve(problem, x, batch.query.shape[1] * self.net.hidden)

    def _metrics(self, z: Tensor, x: Tensor, label: Tensor) -> dict[str, Tensor]:
        return episode_metrics(self._logits(z, x), label)

    def _logits(self, z: Tensor, x: Tensor) -> Tensor:
        """Logits ``(T, E, N)`` of the E images of each task, from their z ``(T, E n)`` and its x ``(T, d)``."""
        each = z.reshape(-1, self.net.hidden)
        return self.net.h(each, x.repeat_interleave(len(each) // len(x), dim=0)).unflatten(0, (len(x), -1))


def packed(net: ConditionalClassifier, image: Tensor) -> Cell:
    """The cell of all images ``(T, E, C, H, W)`` of T tasks: ``z (T, E n), x (T, d) -> (T, E n)``, one x for E images."""
    injection, images = net.inject(image.flatten(0, 1)), image.shape[1]

    def f(z: Tensor, x: Tensor) -> Tensor:
        each = net.f(z.reshape(-1, net.hidden), x.repeat_interleave(images, dim=0), injection)
        return each.view_as(z)

    return f
