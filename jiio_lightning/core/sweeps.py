"""What a joint step does for z and mu before x moves: the family between Joint and Nested, and what it need not do every time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from jiio_lightning.core.equilibrium import Linearisation
from jiio_lightning.core.problem import Evaluation, InnerProblem, loss_gradient
from jiio_lightning.core.state import Augmented


@dataclass(frozen=True)
class StepSizes:
    """Damping of z and mu in Eq. 11; the step in x is a rule of its own (:mod:`jiio_lightning.core.steps`).

    Args:
        z: a_z (C.3: 0.8).
        mu: a_mu (C.3: 0.6).
    """

    z: float = 0.8
    mu: float = 0.6


@dataclass(frozen=True)
class Sweeps:
    r"""How often a joint step visits z, mu and the loss for one visit to x.

    .. math:: z \leftarrow z + a_z (f(z, x) - z), \qquad
              \mu \leftarrow \mu + a_\mu (J_z^\top \mu + \partial_z \ell - \mu)

    Joint (Eq. 11) is one visit each. More of them, the number growing, lead to Nested with warm solves. Those of z take no
    graph, those of mu share one evaluation of f and one of the loss, so that a second sweep costs about half of a first.

    Args:
        count: of z and mu for each step in x. Two pay where x has few directions and each step in it is long (latents).
        loss_every: joint steps for which dl/dz and dl/dx are kept. A head that costs more than the cell and a loss whose gradient
            changes slowly make 4 pay (attacks); those of squared errors and of few-shot tasks change too fast. The last step
            always looks again; before it, and for a sample that a value which is not finite has stopped, mu's residual and the
            cost are those of the gradient that is kept.
        dual_start: further visits of mu in the first step, from mu = 0: the first step in x then follows a gradient, not a
            fraction of one. It pays where z has been solved beforehand (attacks).

    Raises:
        ValueError: for a count or loss_every below 1, or a negative dual_start.
    """

    count: int = 1
    loss_every: int = 1
    dual_start: int = 0

    def __post_init__(self) -> None:
        if min(self.count, self.loss_every) < 1 or self.dual_start < 0:
            raise ValueError(
                "sweeps need count >= 1, loss_every >= 1 and dual_start >= 0, got "
                f"{self.count}, {self.loss_every} and {self.dual_start}"
            )


class Sweeper:
    """Takes an iterate to where a joint step looks at it, and looks; it remembers the loss's gradient between steps.

    Args:
        sweeps: how often.
        step_sizes: damping.
        problem: the inner problem.
        max_steps: joint steps of this solve.
    """

    def __init__(self, sweeps: Sweeps, step_sizes: StepSizes, problem: InnerProblem, max_steps: int) -> None:
        self.sweeps = sweeps
        self.step_sizes = step_sizes
        self.problem = problem
        self.max_steps = max_steps
        self.slope: Evaluation | None = None

    def __call__(self, v: Augmented, step: int) -> tuple[Augmented, Evaluation]:
        """v with z and mu swept, x as it was, and the rows of Eq. 14 there (with the loss's gradient that is kept)."""
        further = self.sweeps.count - 1
        visits = further + (self.sweeps.dual_start if step == 0 else 0)
        if not visits and self.sweeps.loss_every == 1:
            return v, self.problem.evaluate(v)  # one backward pass for f and the loss together
        z, mu = v.z, v.mu
        for _ in range(further):
            z = torch.lerp(z, self.problem.f(z, v.x), self.step_sizes.z)
        at = Linearisation(self.problem.f, z, v.x)
        slope = self._slope(replace(v, z=z), step)
        for _ in range(visits):
            mu = torch.lerp(mu, at.pull_z(mu) + slope.gradient.z, self.step_sizes.mu)
        pulled_z, pulled_x = at.pull(mu)
        gradient = Augmented(z=pulled_z + slope.gradient.z - mu, mu=at.image.detach() - z, x=pulled_x + slope.gradient.x)
        return Augmented(z, mu, v.x), Evaluation(gradient, slope.loss)

    def _slope(self, v: Augmented, step: int) -> Evaluation:
        """The loss and its gradient, at most ``loss_every - 1`` steps old, and new at the last."""
        if self.slope is None or step % self.sweeps.loss_every == 0 or step + 1 == self.max_steps:
            self.slope = loss_gradient(self.problem.loss, v)
        return self.slope
