"""The generation task and what all tasks share."""

from __future__ import annotations

import re

import pytest
import torch

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Augmented, InnerProblem, Joint
from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.core.steps import Plain
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
    wanted = [3 * ((model.net.h(z)[i] - given.image[i]) ** 2).sum().item() for i in range(4)]
    assert model.problem(given).loss(z, x).tolist() == pytest.approx(wanted, rel=1e-5)


def test_an_image_of_another_shape_is_not_spread_over_the_batch():
    """(B, 8, 8) - (B, 1, 8, 8) would be the differences of all pairs of a batch."""
    model = task()
    whole = model.net.h
    model.net.h = lambda z: whole(z).squeeze(1)
    given = batch()
    message = re.escape(f"the net's h has to return {tuple(given.image.shape)} for a batch")
    v = model.start(given)
    with pytest.raises(ValueError, match=message):
        model.problem(given).evaluate(v)
    with pytest.raises(ValueError, match=message):
        model.evaluate(given, None, v.z, v.x)


def test_metrics_of_merit_are_per_image():
    model, given = task(), batch()
    z = torch.randn(4, model.net.hidden)
    metrics = model.evaluate(given, model.problem(given), z, torch.zeros(4, 3))
    wanted = ((model.net.h(z) - given.image) ** 2).mean(dim=(1, 2, 3))
    assert torch.allclose(metrics["error"], wanted)
    assert torch.allclose(metrics["psnr"], 10 * torch.log10(4 / wanted))


def test_the_gradient_is_that_of_the_inner_optimum():
    """Along one direction in the weights: training_step's gradient and central differences of the optimum, re-solved.

    The images are reconstructed almost, so that the optimum is near a known x (and, with this seed, off the kinks of the ReLUs).
    At it the outer loss has no slope in x, which is why Eq. 19 is exact.
    """
    torch.manual_seed(3)
    model = Generation(LatentGenerator(2, (8,), (1, 4, 4), expansion=1)).double()
    solver = inject(model, tight=1e-13)
    solver.train = Joint(Plain(0.05), max_steps=600, tol=1e-10)
    x = torch.randn(4, 2, dtype=torch.float64)
    with torch.no_grad():
        z, _ = solver.resolve(InnerProblem(model.net.f, lambda z, x: z.sum(dim=1)), x, model.net.hidden)
        image = model.net.h(z) + 0.05 * torch.randn(4, 1, 4, 4, dtype=torch.float64)
    given = ImageBatch(image[[1, 3]], torch.zeros(2, dtype=torch.long), torch.arange(2))
    start = Augmented(z, torch.zeros_like(z), x)
    model.start = lambda batch: Augmented(*(block[[1, 3]] for block in (start.z, start.mu, start.x)))
    assert model.inner(model.problem(given), model.start(given)).residuals.max() < 1e-9

    weights = list(model.parameters())
    gradients = torch.autograd.grad(model.training_step(given, 0), weights)
    direction = [torch.randn_like(weight) for weight in weights]
    length = sum(part.square().sum() for part in direction).sqrt()
    slope = float(sum((gradient * part).sum() for gradient, part in zip(gradients, direction, strict=True)) / length)

    @torch.no_grad()
    def optimum(step: float) -> float:
        torch._foreach_add_(weights, direction, alpha=step / float(length))
        cost = model.inner(model.problem(given), model.start(given)).cost.mean()
        torch._foreach_add_(weights, direction, alpha=-step / float(length))
        return float(cost) / model.outer_unit(given)

    assert slope == pytest.approx((optimum(1e-4) - optimum(-1e-4)) / 2e-4, rel=1e-5)


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
    assert small > 0 and torch.allclose(model.training_step(given, 0) - without, 2 * small, rtol=1e-3)


def test_the_loss_scale_does_not_reach_the_weights():
    """The outer loss is per pixel, so that the weight of the penalty means the same whatever the inner loss is multiplied by."""
    values = []
    for scale in (1.0, 10.0):
        model = task(loss_scale=scale)
        inject(model)
        values.append(model.training_step(batch(), 0).item())
    assert values[0] == pytest.approx(values[1], rel=1e-3)


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


def test_a_module_called_encoder_is_loaded_where_the_task_has_one():
    class Encoded(Generation):
        def __init__(self, net):
            super().__init__(net)
            self.encoder = torch.nn.Linear(2, 2)

    one, two, plain = Encoded(task().net), Encoded(task().net), task()
    two.load_state_dict(one.state_dict())
    assert two.encoder.weight.equal(one.encoder.weight)
    plain.load_state_dict(one.state_dict())
