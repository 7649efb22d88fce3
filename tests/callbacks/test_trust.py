"""Samples whose solve went wrong give no gradient, and take none from the others."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.callbacks import AugmentedDEQSolver
from jiio_lightning.core import Augmented, Joint
from jiio_lightning.core.inner import InnerSolution
from tests.callbacks.test_augmented_deq_solver import solution
from tests.tasks.test_generation import batch, inject, task


def test_trust_needs_z_and_mu_but_not_x():
    solver = AugmentedDEQSolver(Joint(), Joint(), trust_tol=0.1)
    rows = [[0.01, 0.01, 0.9], [0.2, 0.01, 0.0], [0.01, 0.2, 0.0], [float("nan"), 0.0, 0.0]]
    assert solver.trusted(solution(rows, [1.0] * 4)).tolist() == [True, False, False, False]


def weights_gradient(model, given) -> list[torch.Tensor]:
    model.zero_grad()
    model.training_step(given, 0).backward()
    return [weight.grad.clone() for weight in model.parameters()]


class Spoilt(Joint):
    """A solver whose sample 0 comes back with a broken mu."""

    def __init__(self, mu: float) -> None:
        super().__init__(max_steps=30)
        self.value = mu

    def __call__(self, problem, v0, observers=()) -> InnerSolution:
        good = super().__call__(problem, v0, observers)
        mu, residuals = good.v.mu.clone(), good.residuals.clone()
        mu[0], residuals[0, 1] = self.value, 1.0
        return InnerSolution(Augmented(good.v.z, mu, good.v.x), residuals, good.cost, good.num_steps, good.finite)


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_an_untrusted_sample_leaves_the_gradient_of_the_others_alone(value):
    model, given = task().train(), batch(3)
    solver = inject(model)
    rest = type(given)(*(part[1:] for part in given))
    alone = weights_gradient(model, rest)
    solver.train = Spoilt(value)
    spoilt = weights_gradient(model, given)
    assert sum(float(gradient.norm()) for gradient in alone) > 0
    for one, other in zip(alone, spoilt, strict=True):
        assert torch.allclose(one * 2 / 3, other, rtol=1e-4, atol=1e-7)  # a mean over three samples, one of them silent
