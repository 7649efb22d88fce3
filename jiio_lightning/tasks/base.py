"""What the tasks share: the path of a batch from the inner problem to the gradient of the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.utils import parametrize

from jiio_lightning.core.inner import InnerSolution, InnerSolver
from jiio_lightning.core.outer import Loss, OuterGradient, Surrogate
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.state import Augmented
from jiio_lightning.starts.base import LearnedStart
from jiio_lightning.tasks.interface import Regularised
from jiio_lightning.tasks.optimiser import adam

LEARNED = "learned_start."
"""How the tensors of a learned start are named in a checkpoint."""

ENCODER = "encoder."
"""How the tensors of an autoencoder's encoder are named in its checkpoint: a task without one leaves them aside."""


class Solver(Protocol):
    """What the AugmentedDEQSolver callback injects."""

    trust_tol: float
    learned_start: bool

    def budget(self, task: JIIOTask) -> InnerSolver:
        """The inner solver of the task's present mode."""

    def statistics(self, solution: InnerSolution) -> dict[str, Tensor]:
        """Figures to log, by name."""

    def trusted(self, solution: InnerSolution) -> Tensor:
        """``(B,)`` bool: the samples whose solution gives a gradient."""

    def check(self, solution: InnerSolution) -> None:
        """Raise if a solution would spoil the weights, warn if it is not feasible."""

    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        """z solved again at x, tightly: z ``(B, n)`` and its relative residual ``(B,)``."""


@dataclass(frozen=True)
class Followed:
    """Equilibria at x* beside those of the inner problem.

    Args:
        v: them, with mu = 0.
        residual: relative residual of z ``(B,)``.
    """

    v: Augmented
    residual: Tensor


class Watch(Protocol):
    """The Jacobian penalty of one training step."""

    observers: Sequence[Observer]

    def penalty(self, problem: InnerProblem, solution: InnerSolution) -> Tensor:
        """The scaled penalty of Eq. 27, a scalar."""


class Regularizer(Protocol):
    """What the JacobianRegularization callback injects."""

    def watch(self, step: int, index: Tensor, max_steps: int) -> Watch:
        """What to observe during a solve of at most ``max_steps``."""


class JIIOTask(Regularised, ABC):
    """Trains a network through an inner problem. A task says what the problem is; the rest is here.

    Args:
        outer: how the gradient of the outer loss is taken (Sec. 3.4).
        learning_rate: of Adam; the peak, with ``one_cycle``.
        one_cycle: warm up and anneal over the run (Smith 2018) instead of a constant rate.
    """

    solver: Solver | None = None
    regularizer: Regularizer | None = None
    learned_start: LearnedStart | None
    """What a trained net's solves may start from (``jiio learn_start``); a task that has none leaves a checkpoint's aside."""

    def __init__(self, outer: OuterGradient, learning_rate: float = 1e-3, one_cycle: bool = True) -> None:
        super().__init__()
        self.learned_start = None  # here, not in the class: a module of that name would be hidden by it
        self.outer = outer
        self.learning_rate = learning_rate
        self.one_cycle = one_cycle

    @abstractmethod
    def problem(self, batch: Any) -> InnerProblem:
        """What is minimised over x for this batch."""

    @abstractmethod
    def start(self, batch: Any) -> Augmented:
        """Where a solve starts in training, and in evaluation unless the solver says otherwise."""

    def begin(self, batch: Any) -> Augmented:
        """Where a solve starts in evaluation: at the learned start if the injected solver wants it.

        Raises:
            ValueError: if there is none.
        """
        return self.informed_start(batch) if self.wants_learned_start else self.start(batch)

    @property
    def wants_learned_start(self) -> bool:
        """Whether a solve in the present mode starts from what was learned.

        Raises:
            ValueError: if it should, and nothing was.
        """
        self.check_start()
        return self.injected.learned_start and not self.training

    @property
    def has_learned_start(self) -> bool:
        """Whether there is one to start from."""
        return self.learned_start is not None and self.learned_start.fitted

    def check_start(self) -> None:
        """Refuse to evaluate with a solver that wants a learned start, where there is none.

        Raises:
            ValueError: if so.
        """
        if self.solver is None or not self.solver.learned_start or self.training or self.has_learned_start:
            return
        if self.learned_start is None:
            raise ValueError(f"{type(self).__name__} has no learned start: leave solver.learned_start out")
        raise ValueError("the checkpoint has no learned start: run `jiio learn_start` on it, or drop solver.learned_start")

    def informed_start(self, batch: Any) -> Augmented:
        """Where the solve starts by ``learned_start``, which is fitted."""
        raise NotImplementedError(f"{type(self).__name__} has no learned start")

    def examples(self, batch: Any, start: Augmented, v: Augmented) -> dict[str, Tensor]:
        """What ``learned_start`` is regressed on, rows by name: of a batch, where its solve began and where it ended."""
        raise NotImplementedError(f"{type(self).__name__} has no learned start")

    def on_fit_start(self) -> None:
        """A start that was learned is one of weights that now change."""
        if self.learned_start is not None:
            self.learned_start.clear()

    @abstractmethod
    def outer_loss(self, batch: Any, problem: InnerProblem) -> Loss:
        """The loss that trains the weights: ``z, x -> (B,)``."""

    @abstractmethod
    def evaluate(self, batch: Any, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Per-sample metrics of merit ``(B,)`` at an iterate."""

    def outer_unit(self, batch: Any) -> float:
        """What the outer loss is divided by before the Jacobian penalty is added, so that its coefficient means the same for all.

        Adam does not care for the scale of the sum, but the penalty's share of it decides whether the equilibrium stays stable.
        """
        return 1.0

    def training_metrics(self, batch: Any, problem: InnerProblem, v: Augmented) -> dict[str, Tensor]:
        """Further metrics of a training step to log, scalars by name."""
        return {}

    def follow(self, batch: Any, v: Augmented) -> Followed | None:
        """What the outer loss needs to have solved at x* beside the inner problem, without a graph; nothing by default."""
        return None

    def outer_gradient(self, batch: Any, problem: InnerProblem, v: Augmented, followed: Followed | None) -> Surrogate:
        """The surrogate of the outer loss at the inner solution v and at what followed; a row of zeros does not count."""
        return self.outer.surrogate(problem, self.outer_loss(batch, problem), v)

    def inner(self, problem: InnerProblem, start: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve the inner problem with the injected solver of the present mode."""
        return self.injected.budget(self)(problem, start, observers)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with parametrize.cached():
            problem = self.problem(batch)
            watch = self.watch(batch)
            solution = self.inner(problem, self.start(batch), watch.observers)
            followed = self.follow(batch, solution.v)
        self.injected.check(solution)
        trusted = self.injected.trusted(solution)
        if followed is not None:
            trusted = trusted & (followed.residual < self.injected.trust_tol)
            followed = Followed(_rows(followed.v, trusted), followed.residual)
        with parametrize.cached():  # anew: normalised weights that a solve has cached without a graph would not be trained
            surrogate = self.outer_gradient(batch, problem, _rows(solution.v, trusted), followed)
            penalty = watch.penalty(problem, solution)
        metrics = self.injected.statistics(solution) | self.training_metrics(batch, problem, solution.v)
        if followed is not None:
            metrics["residual_followed"] = followed.residual.median()
        if surrogate.residual is not None:
            metrics["residual_outer"] = surrogate.residual.median()
        self._log("train", metrics | {"jacobian": penalty.detach()}, len(batch.index))
        return (surrogate.value * trusted).mean() / self.outer_unit(batch) + penalty

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The metrics of ``evaluate`` at the feasible answer, one a sample, and ``index``: logged as means, returned whole."""
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """As validation_step."""
        return self._evaluation_step("test", batch)

    def feasible(self, batch: Any) -> tuple[InnerProblem, InnerSolution, Tensor, Tensor]:
        """The inner problem of a batch, its solution, and z solved again at the returned x with that solve's residual."""
        with parametrize.cached():
            problem = self.problem(batch)
            solution = self.inner(problem, self.begin(batch))
            z, residual = self.injected.resolve(problem, solution.v.x, solution.v.hidden)
        return problem, solution, z, residual

    def configure_optimizers(self) -> Any:
        return adam(self, self.learning_rate, self.one_cycle)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in PyTorch, but weights of another net are one clear error, and an autoencoder's checkpoint is its generator's.

        Raises:
            ValueError: if a tensor is missing, of another shape, or nobody's.
        """
        aside = (ENCODER,) if self.learned_start is not None else (ENCODER, LEARNED)
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith(aside)}
        if strict:
            check_weights(self, state_dict)
        keys = super().load_state_dict(state_dict, strict, assign)
        if self.learned_start is not None:
            self.learned_start.to(self.device)  # its tensors are new, and where the checkpoint's are
        return keys

    def _evaluation_step(self, stage: str, batch: Any) -> dict[str, Tensor]:
        problem, solution, z, residual = self.feasible(batch)
        metrics = self.evaluate(batch, problem, z, solution.v.x) | {"resolve_residual": residual}
        means = {name: value.mean() for name, value in metrics.items()}
        self._log(stage, self.injected.statistics(solution) | means, len(residual))
        return {name: value.detach() for name, value in metrics.items()} | {"index": batch.index}

    def _log(self, stage: str, metrics: dict[str, Tensor], samples: int) -> None:
        for name, value in metrics.items():
            shown = name in ("cost", "feasible", "error")
            self.log(f"{stage}/{name}", value, prog_bar=shown, batch_size=samples, sync_dist=stage != "train")

    def watch(self, batch: Any) -> Watch:
        """What the injected regularisation wants to see of this step's solve."""
        if self.regularizer is None:
            return NoWatch()
        return self.regularizer.watch(self.global_step, batch.index, self.injected.budget(self).max_steps)

    @property
    def injected(self) -> Solver:
        """The injected solver.

        Raises:
            RuntimeError: if there is none.
        """
        if self.solver is None:
            raise RuntimeError(
                "this task has no inner solver: add the AugmentedDEQSolver callback, in a run file by "
                "`solver: ../conf/solver/joint.yaml`"
            )
        return self.solver


def check_weights(module: LightningModule, state_dict: Mapping[str, Any]) -> None:
    """Refuse weights of another net.

    Raises:
        ValueError: if a tensor is missing, of another shape, or nobody's.
    """
    own = module.state_dict()
    names = [name for name in {**own, **state_dict} if not name.startswith(LEARNED)]
    wrong = [name for name in names if _shape(own, name) != _shape(state_dict, name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"the checkpoint is of another net: {len(wrong)} of {len(own)} tensors differ, such as {name}, "
            f"{_shape(state_dict, name)} in the checkpoint and {_shape(own, name)} here. Use the run file it was trained with"
        )


def _shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...] | str:
    return tuple(tensors[name].shape) if name in tensors else "missing"


def _rows(v: Augmented, keep: Tensor) -> Augmented:
    """v with zeros in the rows that are not kept: a NaN would spoil the others' gradient even at weight 0."""
    return Augmented(*(torch.where(keep.unsqueeze(1), block, 0.0) for block in (v.z, v.mu, v.x)))


class NoWatch:
    """No regularisation."""

    observers: Sequence[Observer] = ()

    def penalty(self, problem: InnerProblem, solution: InnerSolution) -> Tensor:
        """0."""
        return solution.cost.new_zeros(())
