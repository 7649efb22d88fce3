"""The injected inner solvers: one for training, one for evaluation, and what they report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse.typing import PositiveFloat
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from jiio_lightning.callbacks.finite import logged
from jiio_lightning.core.capture import Captured, settings
from jiio_lightning.core.inner import RESIDUALS, InnerSolution, InnerSolver, SolveError, diagnose
from jiio_lightning.core.precision import convolutions, full_precision
from jiio_lightning.core.problem import InnerProblem, autocast_dtype
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.core.solvers.observers import Observer, Snapshot
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.interface import InjectedSolver
from jiio_lightning.tasks.representation import Representation

PRECISIONS = ("32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "16", "16-mixed")
"""In the mixed ones f and h are short; state, solver and residuals are float32 (:class:`~jiio_lightning.core.InnerProblem`)."""


class AugmentedDEQSolver(InjectedSolver, Callback):
    """Owns the inner solvers, gives them to the task, judges their solutions.

    A module without an inner problem (an autoencoder, a plain classifier) needs no solver and gets none.

    Args:
        train: solver of training steps (Sec. 4.1: 40 steps); a JIIOTask needs one.
        test: solver of validation, test and prediction (Sec. 4.1: 100 steps); a JIIOTask needs one.
        resolve: re-solves z at the returned x, for feasible metrics.
        feasible_tol: relative residual under which z counts as an equilibrium.
        trust_tol: a training sample whose z or mu has a larger residual gives no gradient of the outer loss in that step.
        learned_start: begin evaluation at the task's learned start (``jiio learn_start``), not where training begins. It needs
            shorter first steps, so it belongs to the solver (conf/solver/*_started.yaml).
        capture: on a GPU, replay a solve as one CUDA graph, where task and solver allow it (their ``capturable``): a training
            step takes 0.2 to 1 of its time (results/gpu.md). It is recorded anew where a public attribute of the task, its net
            or the solver has changed; what f and the loss read elsewhere (a global, a private attribute) stays as it was.
    """

    def __init__(
        self,
        train: InnerSolver | None = None,
        test: InnerSolver | None = None,
        resolve: FixedPoint | None = None,
        feasible_tol: PositiveFloat = 1e-2,
        trust_tol: PositiveFloat = 0.1,
        learned_start: bool = False,
        capture: bool = True,
    ) -> None:
        self.train = train
        self.test = test
        self.tight = FixedPoint(Anderson(memory=8), max_steps=100, tol=1e-5) if resolve is None else resolve
        self.feasible_tol = feasible_tol
        self.trust_tol = trust_tol
        self.learned_start = learned_start
        self.capture = capture
        self._captured = Captured()
        self._warned = False
        self._warned_of_trust = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Inject this solver into the task (Lightning calls it before the module's own setup).

        Raises:
            ValueError: if the task needs a solver and there is none, if it has no use for one, if training is to begin at a
                learned start, or the solver's own arithmetic would lose its precision.
        """
        if isinstance(pl_module, Representation) and (self.train is not None or self.test is not None):
            raise ValueError("Representation optimises no input, so that it has no inner solver: leave out `solver`")
        if not isinstance(pl_module, JIIOTask):
            return
        if trainer is not None:
            check_precision(trainer.precision, isinstance(trainer.accelerator, CUDAAccelerator))
        if self.train is None or self.test is None:
            raise ValueError(
                "There is no inner solver: add `solver: ../conf/solver/joint.yaml` to the run file, or --solver PATH "
                "(solver.train and solver.test are both needed)"
            )
        if stage == "fit" and self.learned_start:
            raise ValueError(
                "solver.learned_start is for trained weights: fit without it, then `jiio learn_start`, then evaluate with it"
            )
        # Not part of the task: a checkpoint never brings budgets of its own, the run file and the command line decide.
        pl_module.solver = self
        self._captured = type(self._captured)()  # what was recorded of another task, or run, is of no use

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """On a GPU only the first step and those that are logged look at their data and their solution."""
        self.may_wait = trainer.strategy.root_device.type == "cpu" or logged(trainer, trainer.global_step + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.may_wait = True

    def budget(self, task: nn.Module) -> InnerSolver:
        solver = self.train if task.training else self.test
        assert solver is not None  # checked in setup
        return solver

    def replayed(self, task: nn.Module, batch: Any, observers: Sequence[Observer] = ()) -> InnerSolution | None:
        solver = self.budget(task)
        if not (self.capture and isinstance(task, JIIOTask) and task.device.type == self._captured.device):
            return None
        if not (task.capturable and solver.capturable and _of_tensors(batch)):
            return None
        if task.uses_learned_start():  # a regression, for which the host waits
            return None
        inputs = {name: tensor for name, tensor in batch._asdict().items() if tensor.device == task.device}
        low = autocast_dtype()

        def solve(*tensors: Tensor) -> list[Tensor]:
            # without what stays on the host (the index): a recording would take the first batch's for all
            given = batch._replace(**dict.fromkeys(batch._fields) | dict(zip(inputs, tensors, strict=True)))
            seen: list[Snapshot] = []
            waits, self.may_wait = self.may_wait, False  # the host looks at the batch elsewhere
            # no cache of weights in bfloat16: they would be those of the recording for ever
            autocast = torch.autocast(task.device.type, low, low is not None, cache_enabled=False)
            try:
                with torch.no_grad(), autocast, cached_weights(task):
                    found = solver(task.problem(given), task.initial(given), [seen.append] if observers else ())
            finally:
                self.may_wait = waits
            shown = [part for now in seen for part in (now.value, now.residual, now.cost)]
            return [found.v.z, found.v.mu, found.v.x, found.residuals, found.cost, found.finite, *shown]

        of_task = settings(task, without=("solver", "regularizer", "learned_start"))
        key = of_task, settings(solver), bool(observers), low, convolutions()
        found = self._captured(key, solve, list(inputs.values()))
        z, mu, x, residuals, cost, finite = (tensor.clone() for tensor in found[:6])  # the next replay writes to their places
        shown = found[6:]
        for step, now in enumerate(zip(shown[::3], shown[1::3], shown[2::3], strict=True)):
            for observer in observers:
                observer(Snapshot(step, *now))
        return InnerSolution(Augmented(z, mu, x), residuals, cost, solver.max_steps, finite)

    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        # from z = 0: feasible metrics are functions of x, not of the solver's z
        with torch.no_grad(), full_precision(x.device.type):
            f = problem.in_full_precision().f
            solution = self.tight(lambda z: f(z, x), x.new_zeros(x.shape[0], hidden))
        return solution.value, solution.residual

    def trusted(self, solution: InnerSolution) -> Tensor:
        # Eq. 19 holds at a KKT point; far from one the gradient is noise that drives the equilibrium further away (without this,
        # runs lost it for good: mu first, z some steps later). The Jacobian penalty still sees every sample and brings it back.
        return solution.finite & (solution.residuals[:, :2] < self.trust_tol).all(dim=1)

    def statistics(self, solution: InnerSolution) -> dict[str, Tensor]:
        """Mean cost, median residuals of z, mu and x, shares of feasible, finite and trusted samples, and steps."""
        medians = solution.residuals.median(dim=0).values
        return {
            "cost": solution.cost.mean(),
            **{f"residual_{name}": value for name, value in zip(RESIDUALS, medians, strict=True)},
            "feasible": solution.feasible(self.feasible_tol).float().mean(),
            "finite": solution.finite.float().mean(),
            "trusted": self.trusted(solution).float().mean(),
            "steps": solution.cost.new_full((), solution.num_steps),
        }

    def check(self, solution: InnerSolution) -> None:
        """Warn once of a solve that is not feasible, and once of one that trains on the penalty alone, where the host may wait.

        A sample that diverged is fine: it fell back to an iterate with a finite cost.

        Raises:
            SolveError: if a sample has no finite solution, as with a NaN in its data: it would make the weights NaN.
        """
        if not self.may_wait:
            return
        if not bool(torch.isfinite(solution.cost).all()):
            raise SolveError(str(diagnose(solution, self.feasible_tol)))
        complaint = None if self._warned else diagnose(solution, self.feasible_tol)
        if complaint is not None:
            self._warned = True
            rank_zero_warn(complaint)
        if not self._warned_of_trust and not bool(self.trusted(solution).any()):
            self._warned_of_trust = True
            rank_zero_warn(
                f"no sample of a training batch has z and mu converged to solver.trust_tol={self.trust_tol:g}: such a step "
                "trains on the Jacobian penalty alone, or on nothing without one. If it lasts (train/trusted stays 0), raise "
                "jacobian.coefficient, solver.train.max_steps or solver.trust_tol."
            )


def _of_tensors(batch: Any) -> bool:
    return hasattr(batch, "_fields") and all(isinstance(part, Tensor) for part in batch)


def check_precision(precision: str | int | None, gpu: bool) -> None:
    """Refuse, by a ValueError, a precision in which the solver's residuals mean nothing; those of PyTorch Lightning.

    Example:
        >>> check_precision("bf16-mixed", gpu=False)
        >>> check_precision("16-mixed", gpu=False)
        Traceback (most recent call last):
        ValueError: --trainer.precision 16-mixed needs a GPU: take bf16-mixed or 32-true on a processor
    """
    if str(precision) in ("16", "16-mixed") and not gpu:
        raise ValueError(f"--trainer.precision {precision} needs a GPU: take bf16-mixed or 32-true on a processor")
    if precision is not None and str(precision) not in PRECISIONS:
        raise ValueError(f"--trainer.precision {precision} would round the solver's state: take bf16-mixed or 32-true")
