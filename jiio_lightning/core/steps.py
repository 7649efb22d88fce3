"""Moves of x, the third row of Eq. 11: plain, normalised, Adam-like, and one that scales itself to the problem."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor


class Schedule(ABC):
    """How the size of a step falls over a solve: a factor on it.

    Example:
        >>> class Halving(Schedule):
        ...     def __call__(self, step: int, max_steps: int) -> float:
        ...         return 0.5**step
        >>> Plain(size=0.4, schedule=Halving()).length(step=2, max_steps=10)
        0.1
    """

    @abstractmethod
    def __call__(self, step: int, max_steps: int) -> float:
        """The factor at a step (from 0) of a budget."""


class Constant(Schedule):
    """No decay.

    Example:
        >>> [Constant()(step, 4) for step in range(4)]
        [1.0, 1.0, 1.0, 1.0]
    """

    def __call__(self, step: int, max_steps: int) -> float:
        return 1.0


class Drop(Schedule):
    """The paper's: the size falls once (C.3: after 65 steps; the released code: at 5/8 of the budget, not before 50).

    Args:
        at: step from which the factor holds.
        factor: on the size.

    Example:
        >>> [Drop(at=2)(step, 4) for step in range(4)]
        [1.0, 1.0, 0.3, 0.3]
    """

    def __init__(self, at: NonNegativeInt = 65, factor: PositiveFloat = 0.3) -> None:
        self.at = at
        self.factor = factor

    def __call__(self, step: int, max_steps: int) -> float:
        return self.factor if step >= self.at else 1.0


class Cosine(Schedule):
    """Half a cosine, from 1 to 0 at the end of the budget: x slows down, and z and mu settle.

    Example:
        >>> [round(Cosine()(step, 4), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
    """

    def __call__(self, step: int, max_steps: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / max_steps))


class Linear(Schedule):
    """A straight line from 1 to 0 at the end of the budget.

    Example:
        >>> [Linear()(step, 4) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
    """

    def __call__(self, step: int, max_steps: int) -> float:
        return 1 - step / max_steps


class Settled(Schedule):
    """Another schedule, then 0 for the last steps: x is frozen while z and mu catch up with it.

    Steps of a fixed length under a norm ball move x to the end, and mu lags behind it: a relative residual of 0.1 to 0.5
    after 40 steps on MNIST, where Eq. 19 asks for a KKT point. Ten steps with x frozen take it below 1 %.

    Args:
        schedule: of the steps before; half a cosine unless given.
        steps: with x frozen; of a short solve at most half of it, so that x always moves.

    Raises:
        ValueError: if steps is negative.

    Example:
        >>> [Settled(Linear(), steps=2)(step, 6) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def __init__(self, schedule: Schedule | None = None, steps: NonNegativeInt = 10) -> None:
        if steps < 0:
            raise ValueError(f"Settled needs steps >= 0, got {steps}")
        self.schedule = Cosine() if schedule is None else schedule
        self.steps = steps

    def __call__(self, step: int, max_steps: int) -> float:
        moving = max_steps - min(self.steps, max_steps // 2)
        return self.schedule(step, moving) if step < moving else 0.0


class StepRule(ABC):
    """From dL/dx to the displacement of x, before projection; a sample never looks at another.

    A rule's state is its own business: the loop only carries it from one step to the next.

    Args:
        size: a_x; in units of x for all rules but Plain.
        schedule: factor on it; constant unless given.

    Example:
        >>> class Clipped(StepRule):
        ...     def move(self, grad, state, step, max_steps):
        ...         return -self.length(step, max_steps) * grad.clamp(-1, 1), state
        >>> Clipped(size=0.5).move(torch.tensor([[3.0, 0.2]]), None, step=0, max_steps=10)
        (tensor([[-0.5000, -0.1000]]), None)
    """

    def __init__(self, size: NonNegativeFloat, schedule: Schedule | None = None) -> None:
        self.size = size
        self.schedule = Constant() if schedule is None else schedule

    def length(self, step: int, max_steps: int) -> float:
        """The size at a step (from 0) of a budget."""
        return self.size * self.schedule(step, max_steps)

    # The state is no type parameter: run files name rules by class, and jsonargparse does not take a subscripted one.
    def init(self, x: Tensor) -> Any:
        """The state before the first step from x ``(B, d)``; none unless a rule says otherwise."""
        return None

    @abstractmethod
    def move(self, grad: Tensor, state: Any, step: int, max_steps: int) -> tuple[Tensor, Any]:
        """The displacement of x ``(B, d)`` for dL/dx ``(B, d)`` at a step (from 0) of a budget, and the next state."""


class Plain(StepRule):
    """``-a_x dL/dx``, the paper's (C.3: 0.01 for images, 0.04 for meta-learning).

    Args:
        size: a_x, in units of x squared over the loss.
        schedule: factor on it; constant unless given.

    Example:
        >>> Plain(0.1).move(torch.tensor([[3.0, -4.0]]), None, step=0, max_steps=10)[0].tolist()
        [[-0.3, 0.4]]
    """

    def move(self, grad: Tensor, state: None, step: int, max_steps: int) -> tuple[Tensor, None]:
        return -self.length(step, max_steps) * grad, None


class Normalised(StepRule):
    """``-a_x g / ||g||_2`` with g = dL/dx: the step of L2 attacks (C.3: 0.1 or 0.6; PGD: 0.2).

    Args:
        size: a_x, a length in the units of x.
        schedule: factor on it; constant unless given.

    Example:
        >>> Normalised(0.1).move(torch.tensor([[3.0, -4.0]]), None, step=0, max_steps=10)[0].tolist()
        [[-0.06, 0.08]]
    """

    def move(self, grad: Tensor, state: None, step: int, max_steps: int) -> tuple[Tensor, None]:
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        return -self.length(step, max_steps) * grad / norm.clamp_min(_floor(grad)), None


class Sign(StepRule):
    """``-a_x sign(g)``: the steepest step under the maximum norm, that of L-infinity attacks.

    Args:
        size: a_x, in the units of x.
        schedule: factor on it; constant unless given.

    Example:
        >>> Sign(0.1).move(torch.tensor([[3.0, -4.0]]), None, step=0, max_steps=10)[0].tolist()
        [[-0.1, 0.1]]
    """

    def move(self, grad: Tensor, state: None, step: int, max_steps: int) -> tuple[Tensor, None]:
        return -self.length(step, max_steps) * grad.sign(), None


class Adam(StepRule):
    """Adam (Kingma & Ba 2015) on x; its state is the running means of g and of its square, both ``(B, d)``.

    Args:
        size: learning rate, a length in the units of x.
        betas: decay of the means.
        schedule: factor on the size; constant unless given.

    Example:
        >>> rule, grad = Adam(0.1), torch.tensor([[3.0, -4.0]])
        >>> rule.move(grad, rule.init(torch.zeros(1, 2)), step=0, max_steps=10)[0].tolist()
        [[-0.1, 0.1]]
    """

    def __init__(
        self, size: NonNegativeFloat = 0.1, betas: tuple[float, float] = (0.9, 0.999), schedule: Schedule | None = None
    ) -> None:
        super().__init__(size, schedule)
        self.betas = betas

    def init(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.zeros_like(x)

    def move(self, grad: Tensor, state: tuple[Tensor, Tensor], step: int, max_steps: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        first = torch.lerp(grad, state[0], self.betas[0])
        second = torch.lerp(grad.square(), state[1], self.betas[1])
        # The means start at 0; the division takes that bias away.
        mean, square = (m / (1 - b ** (step + 1)) for m, b in zip((first, second), self.betas, strict=True))
        return -self.length(step, max_steps) * mean / (square.sqrt() + _floor(square)), (first, second)


class SelfScaled(StepRule):
    r"""The default: the gradient over the root of the sum of all squared gradients so far (AdaGrad-norm, Ward et al. 2019).

    .. math:: x^+ = x - a_k \frac{\sqrt{d} \, g_k}{\sqrt{s_k}}, \quad s_k = \rho s_{k-1} + \|g_k\|^2, \quad g = \partial_x L

    A factor on the loss cancels exactly. The first step has the length of a latent of unit variance. Later steps are those of
    the plain rule with the size that the largest gradients allow. So x jumps first, while mu is still young (the network learns
    to use the jump as an encoder), and then settles like gradient descent. With the cosine x stops within the budget, and z and
    mu with it: the answer is feasible. Other rules that were tried, and their results, are in results/step_rules.md.

    Args:
        size: a, the root-mean-square length of the first step, in the units of x.
        forget: rho. At 1 every gradient counts for ever, which is what a short training solve needs; below it later steps are
            longer, which pays in a longer solve (conf/solver/joint.yaml, meta.yaml).
        schedule: factor on the size; half a cosine unless given.

    Raises:
        ValueError: if forget is not in (0, 1].

    Example:
        >>> rule, grad = SelfScaled(), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
        >>> for factor in (1.0, 1e6):  # a factor on the loss does not change the move
        ...     rule.move(factor * grad, rule.init(grad), step=0, max_steps=10)[0].tolist()
        [[-0.848528, -1.131371]]
        [[-0.848528, -1.131371]]
    """

    def __init__(self, size: NonNegativeFloat = 1.0, forget: float = 1.0, schedule: Schedule | None = None) -> None:
        if not 0 < forget <= 1:
            raise ValueError(f"SelfScaled needs 0 < forget <= 1, got {forget}")
        super().__init__(size, Cosine() if schedule is None else schedule)
        self.forget = forget

    def init(self, x: Tensor) -> Tensor:
        """The root of s_0 = 0, ``(B, 1)``."""
        return torch.zeros_like(x[:, :1])

    def move(self, grad: Tensor, state: Tensor, step: int, max_steps: int) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        state = torch.hypot(self.forget**0.5 * state, norm)  # never overflows where squares would
        length = self.length(step, max_steps) * grad.shape[1] ** 0.5
        return -length * grad / state.clamp_min(_floor(state)), state


def _floor(x: Tensor) -> float:
    """About 1e-19 in float32: squares of what is smaller underflow, and a gradient over the root of their sum would explode."""
    return float(torch.finfo(x.dtype).tiny ** 0.5)
