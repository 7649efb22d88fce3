"""Steps in x, the third row of Eq. 11: plain, normalised, Adam-like, and one that scales itself to the problem."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Schedule(ABC):
    """How a step's size falls over a solve: a factor on it."""

    @abstractmethod
    def __call__(self, step: int, max_steps: int) -> float:
        """The factor at a step (from 0) of a budget."""


class Constant(Schedule):
    """No decay."""

    def __call__(self, step: int, max_steps: int) -> float:
        return 1.0


class Drop(Schedule):
    """The paper's: the size falls once (C.3: after 65 steps; the released code: at 5/8 of the budget, not before 50).

    Args:
        at: step from which the factor holds.
        factor: on the size.
    """

    def __init__(self, at: int = 65, factor: float = 0.3) -> None:
        self.at = at
        self.factor = factor

    def __call__(self, step: int, max_steps: int) -> float:
        return self.factor if step >= self.at else 1.0


class Cosine(Schedule):
    """Half a cosine, from 1 to 0 at the end of the budget: x comes to rest, and z and mu settle."""

    def __call__(self, step: int, max_steps: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / max_steps))


class Linear(Schedule):
    """A straight line from 1 to 0 at the end of the budget."""

    def __call__(self, step: int, max_steps: int) -> float:
        return 1 - step / max_steps


class Settled(Schedule):
    """Another schedule over all but the last steps, and 0 there: x rests while z and mu catch up with it.

    Steps of a fixed length under a norm ball keep x moving to the end, and mu lags behind it: a relative residual of 0.1 to 0.5
    after 40 steps on MNIST, where Eq. 19 asks for a KKT point. Ten steps at rest take it below 1 %.

    Args:
        schedule: of the steps before; half a cosine unless given.
        steps: at rest.

    Raises:
        ValueError: if steps is negative.
    """

    def __init__(self, schedule: Schedule | None = None, steps: int = 10) -> None:
        if steps < 0:
            raise ValueError(f"Settled needs steps >= 0, got {steps}")
        self.schedule = Cosine() if schedule is None else schedule
        self.steps = steps

    def __call__(self, step: int, max_steps: int) -> float:
        moving = max_steps - self.steps
        return self.schedule(step, moving) if step < moving else 0.0


@dataclass(frozen=True)
class StepInput:
    """What a rule may look at.

    Args:
        x: ``(B, d)``.
        grad: dL/dx = J_x^T mu + dl/dx, ``(B, d)``.
        cost: inner loss ``(B,)``.
        feasibility: ||f - z|| / ||f||, ``(B,)``.
        step: number of the step, from 0.
        max_steps: the budget.
    """

    x: Tensor
    grad: Tensor
    cost: Tensor
    feasibility: Tensor
    step: int
    max_steps: int


class StepRule(ABC):
    """From x and its gradient to the next x, before projection; a sample never looks at another.

    A rule's state is its own business: the loop only carries it from one step to the next. (Not a type parameter: run files name
    rules by class, and jsonargparse does not take a subscripted one.)
    """

    @abstractmethod
    def init(self, x: Tensor) -> Any:
        """The state before the first step from x ``(B, d)``."""

    @abstractmethod
    def step(self, at: StepInput, state: Any) -> tuple[Tensor, Any]:
        """The next x ``(B, d)`` and state."""


class Plain(StepRule):
    """``x - a_x dL/dx``, the paper's (C.3: 0.01 for images, 0.04 for meta-learning). Its size has the units of the loss.

    Args:
        size: a_x.
        schedule: factor on it.
    """

    def __init__(self, size: float, schedule: Schedule | None = None) -> None:
        self.size = size
        self.schedule = Constant() if schedule is None else schedule

    def init(self, x: Tensor) -> None:
        return None

    def step(self, at: StepInput, state: None) -> tuple[Tensor, None]:
        return at.x - self.size * self.schedule(at.step, at.max_steps) * at.grad, None


class Normalised(StepRule):
    """``x - a_x g / ||g||_2`` with g = dL/dx: the step of L2 attacks (C.3: 0.1 or 0.6; PGD: 0.2).

    Args:
        size: a_x, a length in the units of x.
        schedule: factor on it.
    """

    def __init__(self, size: float, schedule: Schedule | None = None) -> None:
        self.size = size
        self.schedule = Constant() if schedule is None else schedule

    def init(self, x: Tensor) -> None:
        return None

    def step(self, at: StepInput, state: None) -> tuple[Tensor, None]:
        length = self.size * self.schedule(at.step, at.max_steps)
        return at.x - length * at.grad / _row_norm(at.grad), None


class Sign(StepRule):
    """``x - a_x sign(g)``: the steepest step under the maximum norm, that of L-infinity attacks.

    Args:
        size: a_x, in the units of x.
        schedule: factor on it.
    """

    def __init__(self, size: float, schedule: Schedule | None = None) -> None:
        self.size = size
        self.schedule = Constant() if schedule is None else schedule

    def init(self, x: Tensor) -> None:
        return None

    def step(self, at: StepInput, state: None) -> tuple[Tensor, None]:
        return at.x - self.size * self.schedule(at.step, at.max_steps) * at.grad.sign(), None


@dataclass(frozen=True)
class Moments:
    """Running means of g and of its square, both ``(B, d)``."""

    first: Tensor
    second: Tensor


class Adam(StepRule):
    """Adam (Kingma & Ba 2015) on x.

    Args:
        size: learning rate, a length in the units of x.
        betas: decay of the moments.
        schedule: factor on the size.
    """

    def __init__(self, size: float = 0.1, betas: tuple[float, float] = (0.9, 0.999), schedule: Schedule | None = None) -> None:
        self.size = size
        self.betas = betas
        self.schedule = Constant() if schedule is None else schedule

    def init(self, x: Tensor) -> Moments:
        return Moments(torch.zeros_like(x), torch.zeros_like(x))

    def step(self, at: StepInput, state: Moments) -> tuple[Tensor, Moments]:
        first = torch.lerp(at.grad, state.first, self.betas[0])
        second = torch.lerp(at.grad.square(), state.second, self.betas[1])
        mean, square = (m / (1 - b ** (at.step + 1)) for m, b in zip((first, second), self.betas, strict=True))
        size = self.size * self.schedule(at.step, at.max_steps)
        return at.x - size * mean / (square.sqrt() + _floor(square)), Moments(first, second)


class SelfScaled(StepRule):
    r"""The default: the gradient over the root of the sum of all squared gradients so far (AdaGrad-norm, Ward et al. 2019).

    .. math:: x^+ = x - a_k \frac{\sqrt{d} \, g_k}{\sqrt{s_k}}, \quad s_k = \rho s_{k-1} + \|g_k\|^2, \quad g = \partial_x L

    A factor on the loss cancels exactly. The first step has the length of a latent of unit variance, the later ones are those of
    the plain rule with the size that the largest gradients allow, so that x jumps first (mu is still young: the jump is what the
    network learns to use as an encoder) and then settles like gradient descent. With the cosine x comes to rest within the
    budget, and z and mu with it: the answer is feasible. What else was tried, and what it reached, is in results/step_rules.md.

    Args:
        size: a, the root-mean-square length of the first step, in the units of x.
        forget: rho. At 1 every gradient counts for ever, which is what a short training solve needs; below it later steps are
            longer, which pays in a longer solve (conf/solver/joint.yaml, meta.yaml).
        schedule: factor on the size.

    Raises:
        ValueError: if forget is not in (0, 1].
    """

    def __init__(self, size: float = 1.0, forget: float = 1.0, schedule: Schedule | None = None) -> None:
        if not 0 < forget <= 1:
            raise ValueError(f"SelfScaled needs 0 < forget <= 1, got {forget}")
        self.size = size
        self.forget = forget
        self.schedule = Cosine() if schedule is None else schedule

    def init(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :1])

    def step(self, at: StepInput, state: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(at.grad, dim=1, keepdim=True)
        state = torch.hypot(self.forget**0.5 * state, norm)  # never overflows where squares would
        length = self.size * self.schedule(at.step, at.max_steps) * at.grad.shape[1] ** 0.5
        return at.x - length * at.grad / state.clamp_min(_floor(state)), state


def _row_norm(x: Tensor) -> Tensor:
    """||x|| of each row ``(B, 1)``, never 0."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(_floor(x))


def _floor(x: Tensor) -> float:
    """About 1e-19 in float32: squares of what is smaller underflow, and a gradient over the root of their sum would explode."""
    return float(torch.finfo(x.dtype).tiny ** 0.5)
