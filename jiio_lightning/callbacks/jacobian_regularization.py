"""The injected Jacobian regularisation (Eq. 27)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from jiio_lightning.core.inner import InnerSolution
from jiio_lightning.core.jacobian import jacobian_penalty, mode_penalty
from jiio_lightning.core.layers import Layers, SolvedLayer
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.observers import Observer, RandomIterate
from jiio_lightning.core.state import Augmented
from jiio_lightning.randomness import sample_generators
from jiio_lightning.tasks.interface import Regularised, Regularizer, Watch


class JacobianRegularization(Regularizer, Callback):
    """Adds ``coefficient * jacobian_penalty`` to the loss of a training step.

    Args:
        coefficient: lambda of Eq. 27 (C.4: 0.1 for 40 and 2 for 100 joint steps, 0.01 under attack, 0.5 for meta-learning); 0
            leaves the penalty out.
        probes: standard normal vectors a sample (C.4: 2).
        mode_coefficient: factor on the hinge on the leading mode of J_z at the solution (:func:`core.jacobian.mode_penalty`),
            which is not in the paper; 0 leaves it out.
        at: a random iterate of the solve for each sample (A.1), or its end point.
        seed: the probes and the choice of iterates are functions of (seed, step, sample).
    """

    def __init__(
        self,
        coefficient: float = 0.1,
        probes: int = 2,
        mode_coefficient: float = 0.0,
        at: Literal["trajectory", "end"] = "trajectory",
        seed: int = 0,
    ) -> None:
        if min(coefficient, mode_coefficient) < 0 or probes < 1:
            raise ValueError(
                f"jacobian needs coefficients >= 0 and probes >= 1, got {coefficient}, {mode_coefficient} and {probes}"
            )
        self.coefficient = coefficient
        self.probes = probes
        self.mode_coefficient = mode_coefficient
        self.at = at
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Inject this regularisation into the task."""
        if isinstance(pl_module, Regularised):
            pl_module.regularizer = self

    def watch(self, step: int, index: Tensor, max_steps: int) -> JacobianWatch:
        """What to look at during one solve, and the penalty after it.

        Args:
            step: of the optimiser.
            index: of the samples in their data set ``(B,)``.
            max_steps: budget of the solve.
        """
        return JacobianWatch(self, sample_generators(self.seed, step, index), max_steps, index.device)

    def layers_penalty(self, step: int, index: Tensor, layers: Layers) -> Tensor:
        """Both terms at the equilibria of one pass through a network without an inner problem, summed over its layers.

        Args:
            step: of the optimiser.
            index: of the samples in their data set ``(B,)``.
            layers: solved in this pass, at least one.
        """
        generators = sample_generators(self.seed, step, index)
        return torch.stack([self._layer_penalty(layer, generators) for layer in layers.solved]).sum()

    def _layer_penalty(self, layer: SolvedLayer, generators: Sequence[torch.Generator]) -> Tensor:
        total = layer.z.new_zeros(())
        if self.coefficient:
            probes = draw_probes(self.probes, layer.z, generators)
            total = total + self.coefficient * jacobian_penalty(layer.f, layer.z, layer.x, probes)
        if self.mode_coefficient:
            total = total + self.mode_coefficient * mode_penalty(layer.f, layer.z, layer.x, torch.nan_to_num(layer.gap))
        return total


class JacobianWatch(Watch):
    """The penalty of one training step: draws its iterate before the solve, its probes after it."""

    def __init__(
        self, settings: JacobianRegularization, generators: list[torch.Generator], max_steps: int, device: torch.device
    ) -> None:
        self.settings = settings
        self.generators = generators
        draw = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(device)
        self.iterate = RandomIterate(draw, max_steps)

    @property
    def observers(self) -> Sequence[Observer]:
        """For the solve."""
        return (self.iterate,) if self.settings.coefficient and self.settings.at == "trajectory" else ()

    def penalty(self, problem: InnerProblem, solution: InnerSolution) -> Tensor:
        """Both terms with their coefficients, a scalar with a graph to the weights."""
        total = solution.cost.new_zeros(())
        if self.settings.coefficient:
            v = self._point(solution)
            total = total + self.settings.coefficient * jacobian_penalty(
                problem.f, v.z, v.x, draw_probes(self.settings.probes, v.z, self.generators)
            )
        if self.settings.mode_coefficient:
            v = solution.v
            total = total + self.settings.mode_coefficient * mode_penalty(
                problem.f, v.z, v.x, torch.nan_to_num(problem.gradients(v).z)
            )
        return total

    def _point(self, solution: InnerSolution) -> Augmented:
        """The random iterate, or the end point."""
        if not self.observers or self.iterate.value is None:
            return solution.v
        return Augmented.unpack(self.iterate.value, solution.v.hidden)


def draw_probes(count: int, z: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal probes ``(P, B, n)`` for z ``(B, n)``, each sample's from its own generator."""
    rows = [torch.randn((count, z.shape[1]), generator=generator, dtype=z.dtype) for generator in generators]
    return torch.stack(rows, dim=1).to(z.device)
