"""What callbacks and commands ask of a task, and what they inject into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from jiio_lightning.core.inner import InnerSolution, InnerSolver
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.observers import Observer
from jiio_lightning.models.interface import Generator


class InjectedSolver(ABC):
    """The inner solvers of a task and how their solutions are judged; the AugmentedDEQSolver callback is one."""

    trust_tol: float  # residual of z and mu below which a solution gives a gradient
    learned_start: bool  # whether evaluation begins at the task's learned start
    may_wait: bool = True  # whether this step may look at values on the device, for which the host has to wait

    @abstractmethod
    def budget(self, task: nn.Module) -> InnerSolver:
        """The inner solver of the task's present mode."""

    @abstractmethod
    def replayed(self, task: nn.Module, batch: Any, observers: Sequence[Observer] = ()) -> InnerSolution | None:
        """The solution of a batch where solves are captured on the device; None where they are not."""

    @abstractmethod
    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        """z re-solved at x ``(B, d)`` to a tight tolerance: z ``(B, n)`` and its relative residual ``(B,)``."""

    @abstractmethod
    def trusted(self, solution: InnerSolution) -> Tensor:
        """``(B,)`` bool: the samples whose solution gives a gradient."""

    @abstractmethod
    def statistics(self, solution: InnerSolution) -> dict[str, Tensor]:
        """Metrics of a solve to log, by name."""

    @abstractmethod
    def check(self, solution: InnerSolution) -> None:
        """Warn of a solution that is not feasible.

        Raises:
            SolveError: for one that would spoil the weights.
        """


class Watch:
    """The penalty of one training step; this one has none and observes nothing."""

    observers: Sequence[Observer] = ()  # of the inner solve

    def penalty(self, problem: InnerProblem, solution: InnerSolution) -> Tensor | None:
        """A scalar with a graph to the weights; None in a step without one."""
        return None


class Regularizer:
    """Where training penalties come from; this one has none. The JacobianRegularization callback is the other one."""

    def watch(self, step: int, index: Tensor, max_steps: int) -> Watch:
        """The penalty of one optimiser step, to be asked for before its inner solve, whose budget is ``max_steps``.

        Its random choices are functions of the step and of each sample's index in the data set ``(B,)``.
        """
        return Watch()

    def layers_penalty(self, step: int, index: Tensor, layers: Layers) -> Tensor | None:
        """The penalty of a pass through a network with at least one equilibrium, for modules without an inner problem."""
        return None


class Regularised(LightningModule):
    """A module whose training step adds the penalty of the regularizer that is injected."""

    regularizer: Regularizer = Regularizer()


class LatentModel(ABC):
    """A module with a latent for each image: it is pictured, sampled, compared with PCA and judged by Frechet distances."""

    net: Generator  # from latents to images
    normal_latents: bool = False  # whether its latents follow N(0, I), as those of a VAE do

    @abstractmethod
    def encode(self, batch: Any) -> Tensor:
        """Latents ``(B, d)`` of the batch's images."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] of latents ``(B, d)``."""

    @abstractmethod
    def reconstruct(self, batch: Any) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] of the batch's own latents."""

    @abstractmethod
    def panels(self, batch: Any) -> dict[str, Tensor]:
        """Images ``(B, C, H, W)`` in [-1, 1] of a batch, one row of a picture for each name, from top to bottom."""
