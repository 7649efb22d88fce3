"""Inner iterations of z and mu before x moves: the family between Joint and Nested, and what need not be computed every time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jsonargparse.typing import PositiveFloat

from jiio_lightning.core.equilibrium import Linearisation
from jiio_lightning.core.problem import Evaluation, InnerProblem, loss_gradient
from jiio_lightning.core.state import Augmented


@dataclass(frozen=True)
class StepSizes:
    """Damping of z and mu in Eq. 11; the step in x is a rule of its own (:mod:`jiio_lightning.core.steps`).

    Args:
        z: a_z (C.3: 0.8).
        mu: a_mu (C.3: 0.6).

    Example:
        >>> StepSizes(mu=1.0)
        StepSizes(z=0.8, mu=1.0)
    """

    z: PositiveFloat = 0.8
    mu: PositiveFloat = 0.6


@dataclass(frozen=True)
class Sweeps:
    r"""How many inner iterations of z and mu a joint step takes for one step in x, and how often it evaluates the loss.

    .. math:: z \leftarrow z + a_z (f(z, x) - z), \qquad
              \mu \leftarrow \mu + a_\mu (J_z^\top \mu + \partial_z \ell - \mu)

    Joint (Eq. 11) takes one of each. More and more of them lead to Nested with warm solves. Those of z take no graph, those of mu
    share one evaluation of f and one of the loss, so that a second sweep costs about half of a first.

    Args:
        count: inner iterations of z and mu for each step in x. Two pay where x has few directions and each step in it is long
            (latents).
        loss_every: joint steps for which dl/dz and dl/dx are cached. A head that costs more than the cell and a loss whose
            gradient changes slowly make 4 pay (attacks); those of squared errors and of few-shot tasks change too fast. The last
            step always evaluates it. Before that, and for a sample that stopped at a value that is not finite, mu's residual and
            the cost are those of the cached gradient.
        dual_start: further inner iterations of mu in the first step, from mu = 0: the first step in x then follows a gradient,
            not a fraction of one. It pays where z has been solved beforehand (attacks).
        dual_end: further inner iterations of mu in the last step. They share its evaluation of f, so that each costs a backward
            pass of f alone, a fifth of a joint step. It pays in training, where Eq. 19 asks for mu at x, and where only further
            joint steps with x frozen would bring it there.

    Raises:
        ValueError: for a count or loss_every below 1, or a negative dual_start or dual_end.

    Example:
        >>> Sweeps(count=2)
        Sweeps(count=2, loss_every=1, dual_start=0, dual_end=0)
    """

    count: int = 1
    loss_every: int = 1
    dual_start: int = 0
    dual_end: int = 0

    def __post_init__(self) -> None:
        if min(self.count, self.loss_every) < 1 or min(self.dual_start, self.dual_end) < 0:
            raise ValueError(f"sweeps need count and loss_every >= 1, dual_start and dual_end >= 0, got {self}")


class Sweeper:
    """The inner iterations of one solve but the last, which is :func:`~jiio_lightning.core.joint.joint_update` itself.

    Example:
        One more of z: 0.8 of the way from 0 to f(0, x) = 1.

        >>> problem = InnerProblem(f=lambda z, x: z / 2 + x, loss=lambda z, x: 0.5 * (z - 5).square().sum(1))
        >>> sweep = Sweeper(Sweeps(count=2), StepSizes(), problem, max_steps=10)
        >>> v, at = sweep(Augmented.start(torch.ones(1, 1), hidden=1), step=0)
        >>> v.z.item(), at.gradient.mu.item()  # and f(z, x) - z there
        (0.8, 0.6)
    """

    def __init__(self, sweeps: Sweeps, step_sizes: StepSizes, problem: InnerProblem, max_steps: int) -> None:
        self.sweeps = sweeps
        self.step_sizes = step_sizes
        self.problem = problem
        self.max_steps = max_steps
        self.cached: Evaluation | None = None

    def __call__(self, v: Augmented, step: int) -> tuple[Augmented, Evaluation]:
        """v after the inner iterations of z and mu, x as it was, and dL/dv there."""
        of_z = self.sweeps.count - 1
        of_mu = of_z + (self.sweeps.dual_start if step == 0 else 0)
        of_mu += self.sweeps.dual_end if step + 1 == self.max_steps else 0
        if not of_mu and self.sweeps.loss_every == 1:
            return v, self.problem.evaluate(v)  # one backward pass for f and the loss together
        z, mu = v.z, v.mu
        for _ in range(of_z):
            z = torch.lerp(z, self.problem.f(z, v.x), self.step_sizes.z)
        # One graph of f serves all iterations of mu, at a z that no longer moves.
        at, inner = Linearisation(self.problem.f, z, v.x), self._loss_gradient(replace(v, z=z), step)
        for _ in range(of_mu):
            mu = torch.lerp(mu, at.pull_z(mu) + inner.gradient.z, self.step_sizes.mu)
        pulled_z, pulled_x = at.pull(mu)
        gradient = Augmented(z=pulled_z + inner.gradient.z - mu, mu=at.value.detach() - z, x=pulled_x + inner.gradient.x)
        return Augmented(z, mu, v.x), Evaluation(gradient, inner.loss)

    def _loss_gradient(self, v: Augmented, step: int) -> Evaluation:
        """The loss and its gradient, at most ``loss_every - 1`` steps old, and new at the last step."""
        if self.cached is None or step % self.sweeps.loss_every == 0 or step + 1 == self.max_steps:
            self.cached = loss_gradient(self.problem.loss, v)
        return self.cached
