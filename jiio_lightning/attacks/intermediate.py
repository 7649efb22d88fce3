"""Attacks on what the solver passes through on its way to the equilibrium (Yang et al. 2023, arXiv 2306.01429)."""

from __future__ import annotations

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from jiio_lightning.attacks.base import Attack
from jiio_lightning.attacks.target import Target


class IntermediateStates(Attack):
    r"""PGD on the mean cross-entropy of the unrolled states of a plain solve, differentiated through the iterations themselves.

    .. math:: \max_\delta \frac{1}{K - k_0 + 1} \sum_{k = k_0}^{K} \ell(h(z_k), y), \quad
              z_{k+1} = z_k + a_z (f(z_k, x + \delta) - z_k), \; z_0 = 0

    An implicit gradient is only as good as its two solves; where they hide a weakness, a gradient that uses neither finds it.
    With ``first = unroll`` it is an attack on the truncated solve alone.

    Args:
        steps: gradients taken.
        size: length of a step over eps.
        unroll: K, iterations of the solve.
        first: k_0, the first state that counts.
        damping: a_z.
        restarts: runs, the first from delta = 0, the others from random ones.

    Raises:
        ValueError: if no state counts.
    """

    def __init__(
        self,
        steps: PositiveInt = 20,
        size: PositiveFloat = 0.2,
        unroll: PositiveInt = 8,
        first: PositiveInt = 4,
        damping: PositiveFloat = 1.0,
        restarts: PositiveInt = 1,
    ) -> None:
        super().__init__(restarts)
        if first > unroll:
            raise ValueError(f"IntermediateStates counts the states from first to unroll: got first {first} and unroll {unroll}")
        self.steps = steps
        self.size = size
        self.unroll = unroll
        self.first = first
        self.damping = damping

    def perturb(self, target: Target, restart: int) -> Tensor:
        rule = target.threat.steepest(self.size * target.threat.eps)
        delta = self.first_delta(target, restart)
        state = rule.init(delta)
        for step in range(self.steps):
            _, gradient = self._gradient(target, delta)
            move, state = rule.move(gradient, state, step, self.steps)
            delta = target.problem.project(delta + move)
        return delta

    def _gradient(self, target: Target, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the mean cross-entropy ``(B,)`` and its gradient in delta ``(B, d)``."""
        with torch.enable_grad():
            delta = delta.detach().requires_grad_()
            z, costs = delta.new_zeros(len(delta), target.net.hidden), []
            for k in range(1, self.unroll + 1):
                z = z + self.damping * (target.problem.f(z, delta) - z)
                if k >= self.first:
                    costs.append(target.problem.loss(z, delta))
            cost = torch.stack(costs).mean(dim=0)
            (gradient,) = torch.autograd.grad(cost.sum(), delta)
        return cost.detach(), gradient
