"""The generation task and what all tasks share."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Joint
from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.data import ImageBatch
from jiio_lightning.models import LatentGenerator
from jiio_lightning.tasks import Generation


def task(dtype: torch.dtype = torch.float32, **options) -> Generation:
    torch.manual_seed(0)
    return Generation(LatentGenerator(3, (8, 8), (1, 8, 8), expansion=1), **options).to(dtype)


def batch(size: int = 4, dtype: torch.dtype = torch.float32) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(size, 1, 8, 8, generator=generator, dtype=dtype) * 2 - 1
    return ImageBatch(image, torch.zeros(size, dtype=torch.long), torch.arange(size))


def inject(model: Generation, steps: int = 30, tight: float = 1e-5) -> AugmentedDEQSolver:
    resolve = FixedPoint(Anderson(memory=8), max_steps=300, tol=tight)
    solver = AugmentedDEQSolver(Joint(max_steps=steps), Joint(max_steps=steps), resolve)
    solver.setup(None, model, "fit")
    model.log = lambda *args, **kwargs: None
    return solver


def test_the_inner_loss_is_a_sum_over_pixels():
    model, given = task(loss_scale=3.0), batch()
    z, x = torch.randn(4, model.net.hidden), torch.zeros(4, 3)
    wanted = [3 * float(((model.net.h(z)[i] - given.image[i]) ** 2).sum()) for i in range(4)]
    assert model.problem(given).loss(z, x).tolist() == pytest.approx(wanted, rel=1e-5)


def test_figures_of_merit_are_per_image():
    model, given = task(), batch()
    z = torch.randn(4, model.net.hidden)
    figures = model.evaluate(given, model.problem(given), z, torch.zeros(4, 3))
    wanted = ((model.net.h(z) - given.image) ** 2).mean(dim=(1, 2, 3))
    assert torch.allclose(figures["error"], wanted)
    assert torch.allclose(figures["psnr"], 10 * torch.log10(4 / wanted))


def test_the_gradient_is_that_of_the_inner_optimum():
    """Along one direction in the weights: training_step's gradient and central differences of min_x, solved again each time.

    At the optimum of the inner problem the outer loss has no slope in x, so that Eq. 19 is exact.
    """
    model, given = task(torch.float64), batch(2, torch.float64)
    solver = inject(model, steps=6000, tight=1e-12)
    solver.train = Joint(max_steps=6000, tol=1e-11)
    loss = model.training_step(given, 0)
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss, weights)
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))

    def optimum(step: float) -> float:
        with torch.no_grad():
            for weight, part in zip(weights, direction, strict=True):
                weight += step * part
            problem = model.problem(given)
            x = solver.train(problem, model.start(given)).v.x
            value = float(problem.loss(solver.resolve(problem, x, model.net.hidden)[0], x).mean())
            for weight, part in zip(weights, direction, strict=True):
                weight -= step * part
        return value

    step = 1e-4
    assert slope == pytest.approx((optimum(step) - optimum(-step)) / (2 * step), rel=1e-3)


def test_the_penalty_is_part_of_the_gradient():
    model, given = task(), batch()
    inject(model)
    model.train()
    without = model.training_step(given, 0)
    JacobianRegularization(coefficient=0.0).setup(None, model, "fit")
    assert model.training_step(given, 0).equal(without)
    JacobianRegularization(coefficient=0.5).setup(None, model, "fit")
    small = model.training_step(given, 0) - without
    JacobianRegularization(coefficient=1.0).setup(None, model, "fit")
    assert 0 < small and torch.allclose(model.training_step(given, 0) - without, 2 * small, rtol=1e-3)


def test_without_a_solver():
    with pytest.raises(RuntimeError, match=r"has no inner solver: add the AugmentedDEQSolver callback.*solver: "):
        task().training_step(batch(), 0)


def test_a_prediction_is_feasible():
    model, given = task().eval(), batch()
    solver = inject(model)
    made = model.predict_step(given, 0)
    z, residual = solver.resolve(model.problem(given), made["latent"], model.net.hidden)
    assert residual.max() < 1e-4 and torch.allclose(model.net.h(z), made["image"], atol=1e-3)
    assert made["index"].equal(given.index) and torch.allclose(model.reconstruct(given), made["image"])


def test_weights_of_another_net_are_one_clear_error():
    model = task()
    other = Generation(LatentGenerator(4, (8, 8), (1, 8, 8), expansion=1))
    with pytest.raises(ValueError, match=r"1 of \d+ tensors differ, such as net.inject.weight, \(\d+, 4\) in the checkpoint"):
        model.load_state_dict(other.state_dict())
    spare = model.state_dict() | {"unknown": torch.zeros(1)}
    with pytest.raises(ValueError, match="unknown, .* in the checkpoint and missing here"):
        model.load_state_dict(spare)
    model.load_state_dict(spare, strict=False)
    model.load_state_dict(task().state_dict())
