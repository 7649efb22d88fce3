"""What the tasks share: the path of a batch from the inner problem to the gradient of the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from jiio_lightning.core.inner import InnerSolution
from jiio_lightning.core.outer import Loss, OuterGradient, Surrogate
from jiio_lightning.core.precision import full_precision
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.starts.base import LearnedStart
from jiio_lightning.tasks.interface import InjectedSolver, Regularised
from jiio_lightning.tasks.optimiser import adam
from jiio_lightning.tasks.processes import processes, weighted

LEARNED = "learned_start."
"""Prefix of a learned start's tensors in a checkpoint."""

ENCODER = "encoder."
"""Prefix of an autoencoder's encoder in its checkpoint: a task without one ignores them."""

Module = TypeVar("Module", bound=LightningModule)
Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


def in_full_precision(method: Callable[Concatenate[Module, Inputs], Result]) -> Callable[Concatenate[Module, Inputs], Result]:
    """A method of a module without what makes training shorter, autocast and short convolutions: what judges is not rounded."""

    @wraps(method)
    def exact(module: Module, *args: Inputs.args, **kwargs: Inputs.kwargs) -> Result:
        with full_precision(module.device.type):
            return method(module, *args, **kwargs)

    return exact


class JIIOTask(Regularised, ABC):
    """Trains a network through an inner problem. A task says what the problem is; the rest is here.

    A subclass implements ``problem``, ``start``, ``outer_loss`` and ``evaluate``; with a learned start also ``at_learned_start``
    and ``examples``. ``outer`` says how the gradient of the outer loss is taken (Sec. 3.4).

    Example:
        Find the latents that make a net's images bright, and train the net for it.

        >>> from collections import namedtuple
        >>> from jiio_lightning.callbacks import AugmentedDEQSolver
        >>> from jiio_lightning.core import DualReuse, Joint
        >>> from jiio_lightning.models import LatentGenerator
        >>> class Bright(JIIOTask):
        ...     def __init__(self):
        ...         super().__init__(DualReuse())
        ...         self.net = LatentGenerator(2, channels=(4,), image_shape=(1, 4, 4))
        ...     def problem(self, batch):
        ...         return InnerProblem(self.net.f, lambda z, x: (1 - self.net.h(z)).square().flatten(1).sum(1))
        ...     def start(self, batch):
        ...         return Augmented.start(torch.zeros(len(batch.index), 2), self.net.hidden)
        ...     def outer_loss(self, batch, problem):
        ...         return problem.loss
        ...     def evaluate(self, batch, problem, z, x):
        ...         return {"error": problem.loss(z, x)}
        >>> task, batch = Bright().eval(), namedtuple("Batch", "index")(torch.arange(3))
        >>> AugmentedDEQSolver(Joint(max_steps=20), Joint(max_steps=20)).setup(None, task, "test")
        >>> problem, solution, z, residual = task.feasible(batch)
        >>> problem.loss(z, solution.v.x).shape, residual.max().item() < 1e-2
        (torch.Size([3]), True)
    """

    solver: InjectedSolver | None = None
    capturable: bool = False
    """Whether a GPU may replay its solves (``solver.capture``): ``problem`` and ``start`` depend on the batch's tensors on the
    device (``batch.index`` is on the host, and None there), the weights and public attributes alone; they draw nothing at random
    on the host, and wait for the device only where ``may_wait``. A subclass with a problem or a start of its own says it anew."""
    learned_start: LearnedStart | None
    """Where the solves of a trained net may begin (``jiio learn_start``); a task without one ignores that of a checkpoint."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if vars(cls).keys() & {"problem", "start"} and "capturable" not in vars(cls):
            cls.capturable = False  # what a class says of its own problem and start does not hold for others

    def __init__(self, outer: OuterGradient, learning_rate: float = 1e-3, one_cycle: bool = True) -> None:
        super().__init__()
        self.learned_start = None  # here, not in the class: a class attribute would hide a module of that name
        self.outer = outer
        self.learning_rate = learning_rate
        self.one_cycle = one_cycle

    # what a task says

    @abstractmethod
    def problem(self, batch: Any) -> InnerProblem:
        """What is minimised over x for this batch."""

    @abstractmethod
    def start(self, batch: Any) -> Augmented:
        """Where a solve begins in training, and in evaluation unless ``solver.learned_start`` is set."""

    @abstractmethod
    def outer_loss(self, batch: Any, problem: InnerProblem) -> Loss:
        """The loss that trains the weights: ``z, x -> (B,)``."""

    @abstractmethod
    def evaluate(self, batch: Any, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Metrics of each sample ``(B,)`` at an iterate, by name."""

    def outer_unit(self, batch: Any) -> float:
        """What the outer loss is divided by before the Jacobian penalty is added: its coefficient then means the same for all."""
        return 1.0

    def training_metrics(self, batch: Any, problem: InnerProblem, v: Augmented) -> dict[str, Tensor]:
        """Further metrics of a training step to log, scalars by name."""
        return {}

    def at_learned_start(self, batch: Any) -> Augmented:
        """Where ``learned_start``, which has been fitted, begins a solve."""
        raise NotImplementedError(f"{type(self).__name__} has no learned start")

    def examples(self, batch: Any, start: Augmented, v: Augmented) -> dict[str, Tensor]:
        """What ``learned_start`` is fitted to, rows by name: from a batch, where its solve began and where it ended."""
        raise NotImplementedError(f"{type(self).__name__} has no learned start")

    # the path of a batch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """A scalar whose gradient is that of the outer loss (Sec. 3.4) plus the Jacobian penalty's; its value means nothing."""
        problem = self.problem(batch)
        watch = self.regularizer.watch(self.global_step, batch.index, self.injected.budget(self).max_steps)
        solution = self.injected.replayed(self, batch, watch.observers)  # outside: it computes cached weights of its own
        with cached_weights(self):  # one block: surrogate and penalty train the very weights that the solve has used
            if solution is None:
                solution = self.inner(problem, self.start(batch), watch.observers)
            self.injected.check(solution)  # before a gradient: a NaN in it would spoil all weights
            surrogate = self.outer_gradient(batch, problem, solution)
            penalty = watch.penalty(problem, solution)
        self._log_step(batch, problem, solution, surrogate, penalty)
        # Adam ignores the scale of this sum, but the penalty's share of it decides whether the equilibrium stays stable.
        loss = surrogate.value.mean() / self.outer_unit(batch)
        return weighted(loss if penalty is None else loss + penalty, len(batch.index))

    def outer_gradient(self, batch: Any, problem: InnerProblem, solution: InnerSolution) -> Surrogate:
        """The surrogate of the outer loss at the inner solution, 0 for samples that are not trusted."""
        trusted = self.injected.trusted(solution)
        surrogate = self.outer.surrogate(problem, self.outer_loss(batch, problem), trusted_rows(solution.v, trusted))
        return replace(surrogate, value=surrogate.value * trusted)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The metrics of ``evaluate`` where z is re-solved at the returned x, one a sample, and ``index``: means are logged."""
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """As validation_step."""
        return self._evaluation_step("test", batch)

    def inner(self, problem: InnerProblem, start: Augmented, observers: Sequence[Observer] = ()) -> InnerSolution:
        """Solve the inner problem with the injected solver of the present mode."""
        return self.injected.budget(self)(problem, start, observers)

    def solve(self, batch: Any, observers: Sequence[Observer] = ()) -> tuple[InnerProblem, InnerSolution]:
        """The inner problem of a batch and its solution from ``initial``, for evaluation."""
        problem = self.problem(batch)  # first: it looks at the batch
        solution = None if observers else self.injected.replayed(self, batch)
        if solution is None:
            with cached_weights(self):
                solution = self.inner(problem, self.initial(batch), observers)
        return problem, solution

    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        """z re-solved at x: z ``(B, n)`` and its relative residual ``(B,)``. The inner loss there is the feasible cost."""
        with cached_weights(self):
            return self.injected.resolve(problem, x, hidden)

    def feasible(self, batch: Any) -> tuple[InnerProblem, InnerSolution, Tensor, Tensor]:
        """The inner problem of a batch, its solution, and z re-solved at the returned x with the residual of that."""
        problem, solution = self.solve(batch)
        return problem, solution, *self.resolve(problem, solution.v.x, solution.v.hidden)

    def initial(self, batch: Any) -> Augmented:
        """Where a solve begins in the present mode: ``start``, or in evaluation ``at_learned_start`` if the solver says so."""
        return self.at_learned_start(batch) if self.uses_learned_start() else self.start(batch)

    def uses_learned_start(self) -> bool:
        """Whether solves begin at the learned start in the present mode; a ValueError if they should and there is none."""
        if self.training or not self.injected.learned_start:
            return False
        if self.learned_start is None:
            raise ValueError(f"{type(self).__name__} has no learned start: leave solver.learned_start out")
        if not self.learned_start.fitted:
            raise ValueError("the checkpoint has no learned start: run `jiio learn_start` on it, or drop solver.learned_start")
        return True

    def on_fit_start(self) -> None:
        """Forget the learned start: it belongs to weights that now change."""
        if self.learned_start is not None:
            self.learned_start.clear()

    def configure_optimizers(self) -> Any:
        return adam(self, self.learning_rate, self.one_cycle)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in PyTorch, but weights of another net are one ValueError, and an autoencoder's checkpoint is its generator's."""
        # one checkpoint serves several tasks: Generation takes an autoencoder's, Inverse a generator's
        ignored = (ENCODER,) if self.learned_start is not None else (ENCODER, LEARNED)
        own = self.state_dict()
        state_dict = {name: tensor for name, tensor in state_dict.items() if name in own or not name.startswith(ignored)}
        if strict:
            check_weights(self, state_dict)
        keys = super().load_state_dict(state_dict, strict, assign)
        if self.learned_start is not None:
            self.learned_start.to(self.device)  # its tensors are new, and on the checkpoint's device
        return keys

    @property
    def injected(self) -> InjectedSolver:
        """The injected solver; a RuntimeError if there is none."""
        if self.solver is None:
            raise RuntimeError(
                "this task has no inner solver: add the AugmentedDEQSolver callback, in a run file by "
                "`solver: ../conf/solver/joint.yaml`"
            )
        return self.solver

    @property
    def may_wait(self) -> bool:
        """Whether the host may wait for the device in this step."""
        return self.solver is None or self.solver.may_wait

    @in_full_precision
    def _evaluation_step(self, stage: str, batch: Any) -> dict[str, Tensor]:
        problem, solution, z, residual = self.feasible(batch)
        metrics = self.evaluate(batch, problem, z, solution.v.x) | {"resolve_residual": residual}
        means = {name: value.mean() for name, value in metrics.items()}
        self._log(stage, self.injected.statistics(solution) | means, len(residual))
        return {name: value.detach() for name, value in metrics.items()} | {"index": batch.index}

    def _log_step(
        self, batch: Any, problem: InnerProblem, solution: InnerSolution, surrogate: Surrogate, penalty: Tensor | None
    ) -> None:
        metrics = self.injected.statistics(solution) | self.training_metrics(batch, problem, solution.v)
        if surrogate.residual is not None:
            metrics["residual_outer"] = surrogate.residual.median()
        if penalty is not None:
            metrics["jacobian"] = penalty.detach()
        self._log("train", metrics, len(batch.index))

    def _log(self, stage: str, metrics: dict[str, Tensor], samples: int) -> None:
        for name, value in metrics.items():
            shown = name in ("cost", "feasible", "error")
            # no synchronisation in training: it would cost a barrier for each metric and step. Lightning rounds the mean of the
            # processes' numbers of samples down: of these multiples it is whole.
            self.log(f"{stage}/{name}", value, prog_bar=shown, batch_size=samples * processes(), sync_dist=stage != "train")


def trusted_rows(v: Augmented, trusted: Tensor) -> Augmented:
    """v with zeros in the rows that are not trusted: a NaN would spoil the others' gradient even at weight 0."""
    return Augmented(*(torch.where(trusted.unsqueeze(1), block, 0.0) for block in (v.z, v.mu, v.x)))


def check_weights(module: LightningModule, state_dict: Mapping[str, Any]) -> None:
    """Refuse, by a ValueError, weights of another net: a tensor is missing, of another shape, or unknown."""

    def shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...] | str:
        return tuple(tensors[name].shape) if name in tensors else "missing"

    own = module.state_dict()
    names = [name for name in {**own, **state_dict} if not name.startswith(LEARNED)]
    wrong = [name for name in names if shape(own, name) != shape(state_dict, name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"the checkpoint is of another net: {len(wrong)} of {len(own)} tensors differ, such as {name}, "
            f"{shape(state_dict, name)} in the checkpoint and {shape(own, name)} here. Use the run file it was trained with"
        )
