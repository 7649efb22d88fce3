"""The injected Jacobian regularisation (Eq. 27)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from jiio_lightning.core.equilibrium import Cell
from jiio_lightning.core.inner import InnerSolution
from jiio_lightning.core.jacobian import jacobian_penalty, mode_penalty
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.solvers.observers import RandomIterate
from jiio_lightning.core.state import Augmented
from jiio_lightning.randomness import sample_generators
from jiio_lightning.tasks.interface import Regularised, Regularizer, Watch
from jiio_lightning.tasks.representation import Representation


class JacobianRegularization(Regularizer, Callback):
    """Adds ``coefficient * jacobian_penalty + mode_coefficient * mode_penalty`` to the loss of a training step.

    Args:
        coefficient: lambda of Eq. 27 (C.4: 0.1 for 40 and 2 for 100 joint steps, 0.01 under attack, 0.5 for meta-learning); 0
            leaves the penalty out.
        probes: standard normal vectors a sample (C.4: 2).
        mode_coefficient: factor on the hinge on the leading mode of J_z at the solution (:func:`core.jacobian.mode_penalty`),
            which is not in the paper; 0 leaves it out.
        at: a random iterate of the solve for each sample (A.1), or its end point.
        every: optimiser steps from one penalty to the next. While the equilibrium is stable the hinge is 0, and looking at it
            takes a fifth of a step of eight joint steps. ``train/jacobian`` is the last one that was looked at
            in the epoch.
        seed: the probes and the choice of iterates are functions of (seed, step, sample).
    """

    def __init__(
        self,
        coefficient: NonNegativeFloat = 0.1,
        probes: PositiveInt = 2,
        mode_coefficient: NonNegativeFloat = 0.0,
        at: Literal["trajectory", "end"] = "trajectory",
        every: PositiveInt = 1,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.coefficient = coefficient
        self.probes = probes
        self.mode_coefficient = mode_coefficient
        self.at = at
        self.every = every
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Inject this regularisation into the task.

        Raises:
            ValueError: if the task has no use for one, and it is not that of a run file without `jacobian`.
        """
        if isinstance(pl_module, Representation) and not vars(JacobianRegularization()).items() <= vars(self).items():
            raise ValueError("Representation bounds its cell by model.net.bound: leave out `jacobian`")
        if isinstance(pl_module, Regularised):
            pl_module.regularizer = self

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take it out again: another trainer's fit is without it."""
        if isinstance(pl_module, Regularised):
            pl_module.regularizer = Regularizer()

    def watch(self, step: int, index: Tensor, max_steps: int) -> Watch:
        if step % self.every:
            return Watch()
        return JacobianWatch(self, sample_generators(self.seed, step, index), max_steps)

    def layers_penalty(self, step: int, index: Tensor, layers: Layers) -> Tensor | None:
        """Both terms at each layer's equilibrium, summed over the layers."""
        if step % self.every:
            return None
        generators = sample_generators(self.seed, step, index)
        terms = [
            self.jacobian_term(layer.f, layer.z, layer.x, generators) + self.mode_term(layer.f, layer.z, layer.x, layer.gap)
            for layer in layers.solved
        ]
        return torch.stack(terms).sum()

    def jacobian_term(self, f: Cell, z: Tensor, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Eq. 27 at (z, x) with its coefficient, a scalar."""
        if not self.coefficient:
            return z.new_zeros(())
        return self.coefficient * jacobian_penalty(f, z, x, draw_probes(self.probes, z, generators))

    def mode_term(self, f: Cell, z: Tensor, x: Tensor, gap: Tensor) -> Tensor:
        """The hinge on the leading mode with its coefficient, a scalar; the power iteration starts at the gap ``(B, n)``."""
        if not self.mode_coefficient:
            return z.new_zeros(())
        probe = torch.nan_to_num(gap)  # the penalty is a mean over samples: a NaN of one would spoil it
        return self.mode_coefficient * mode_penalty(f, z, x, probe)


class JacobianWatch(Watch):
    """The penalty of one training step."""

    def __init__(self, settings: JacobianRegularization, generators: list[torch.Generator], max_steps: int) -> None:
        self.settings = settings
        self.generators = generators
        # Before the probes, which the same generators give after the solve: the order is part of what a seed means.
        draw = torch.stack([torch.rand((), generator=generator) for generator in generators])
        self.iterate = RandomIterate(draw, max_steps)
        self.observers = (self.iterate,) if settings.coefficient and settings.at == "trajectory" else ()

    def penalty(self, problem: InnerProblem, solution: InnerSolution) -> Tensor:
        v = solution.v
        at = v if self.iterate.value is None else Augmented.unpack(self.iterate.value, v.hidden)
        jacobian = self.settings.jacobian_term(problem.f, at.z, at.x, self.generators)
        if not self.settings.mode_coefficient:
            return jacobian
        return jacobian + self.settings.mode_term(problem.f, v.z, v.x, problem.gradients(v).z)


def draw_probes(count: int, z: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal probes ``(P, B, n)`` for z ``(B, n)``, each sample's from its own generator."""
    rows = [torch.randn((count, z.shape[1]), generator=generator, dtype=z.dtype) for generator in generators]
    return torch.stack(rows, dim=1).to(z.device)
