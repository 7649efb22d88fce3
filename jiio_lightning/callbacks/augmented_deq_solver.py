"""The injected inner solvers: one for training, one for evaluation, and what they report."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveFloat
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from jiio_lightning.callbacks.finite import logged
from jiio_lightning.core.inner import RESIDUALS, InnerSolution, InnerSolver, SolveError, diagnose
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
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
        compile: backend of ``torch.compile`` for the parts of the net (cell, head, injection). ``inductor`` compiles them,
            ``cudagraphs`` captures them on a GPU, which was never tried; ``aot_eager`` traces them and compiles nothing: a check.
            What a backend cannot compile stays eager, with a warning.
    """

    def __init__(
        self,
        train: InnerSolver | None = None,
        test: InnerSolver | None = None,
        resolve: FixedPoint | None = None,
        feasible_tol: PositiveFloat = 1e-2,
        trust_tol: PositiveFloat = 0.1,
        learned_start: bool = False,
        compile: Literal["inductor", "cudagraphs", "aot_eager"] | None = None,
    ) -> None:
        self.train = train
        self.test = test
        self.tight = FixedPoint(Anderson(memory=8), max_steps=100, tol=1e-5) if resolve is None else resolve
        self.feasible_tol = feasible_tol
        self.trust_tol = trust_tol
        self.learned_start = learned_start
        self.compile = compile
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
        if self.compile is not None:
            compile_parts(pl_module.net, self.compile)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """On a GPU only the first step and those that are logged look at their data and their solution."""
        self.may_wait = trainer.strategy.root_device.type == "cpu" or logged(trainer, trainer.global_step + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.may_wait = True

    def budget(self, task: nn.Module) -> InnerSolver:
        solver = self.train if task.training else self.test
        assert solver is not None  # checked in setup
        return solver

    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # from z = 0: feasible metrics are functions of x, not of the solver's z
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


def compile_parts(net: nn.Module, backend: str) -> None:
    """Compile each part of a net for itself, in place: f and h of any net are calls of its parts, and no solver changes.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        >>> z = torch.ones(1, 2)
        >>> eager = net(z)
        >>> compile_parts(net, "aot_eager")
        >>> torch.equal(net(z), eager)
        True
    """
    # An adjoint solve goes back through one graph of f many times: its buffers may not be given away the first time.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.suppress_errors = True  # eager instead
    for part in net.children():
        part.compile(backend=backend)


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
