from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jiio_lightning.core.steps import (
    Adam,
    Constant,
    Cosine,
    Drop,
    Linear,
    Normalised,
    Plain,
    SelfScaled,
    Settled,
    StepRule,
)

RULES: dict[str, StepRule] = {"plain": Plain(0.1), "normalised": Normalised(0.1), "adam": Adam(0.1), "default": SelfScaled()}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def run(rule: StepRule, x: Tensor, gradients: list[Tensor]) -> Tensor:
    """All iterates ``(steps + 1, B, d)``."""
    state, path = rule.init(x), [x]
    for step, grad in enumerate(gradients):
        move, state = rule.move(grad, state, step, len(gradients))
        path.append(path[-1] + move)
    return torch.stack(path)


def test_plain_and_normalised_are_what_they_say() -> None:
    x, grad = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(run(Plain(0.1), x, [grad])[1], x - 0.1 * grad)
    moved = run(Normalised(0.1), x, [grad])[1] - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 0.1))
    torch.testing.assert_close(moved / 0.1, -grad / grad.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_adam_is_torch_adam(betas: tuple[float, float]) -> None:
    x, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(12)]
    leaf = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.1, betas=betas, eps=0.0)
    for grad, ours in zip(gradients, run(Adam(0.1, betas), x, gradients)[1:], strict=True):
        leaf.grad = grad
        optimiser.step()
        torch.testing.assert_close(ours, leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_steps", [1, 2, 5, 10, 11, 20, 40])
def test_x_moves_in_half_of_a_short_solve(max_steps: int) -> None:
    factors = [Settled(steps=10)(step, max_steps) for step in range(max_steps)]
    moving = max_steps - min(10, max_steps // 2)
    assert factors == [Cosine()(step, moving) for step in range(moving)] + [0.0] * (max_steps - moving) and factors[0] > 0


def test_the_first_gradient_of_a_joint_solve_is_zero_and_moves_nothing() -> None:
    """mu starts at 0 and the loss of a generator does not see x."""
    for rule in RULES.values():
        path = run(rule, torch.ones(2, 3), [torch.zeros(2, 3), torch.ones(2, 3)])
        assert torch.equal(path[1], path[0]) and bool(torch.isfinite(path).all())


@pytest.mark.parametrize("name", ["normalised", "adam", "default"])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_factor_on_the_gradients_does_not_change_the_path(name: str, factor: float) -> None:
    x, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(12)]
    scaled = run(RULES[name], x, [factor * grad for grad in gradients])
    torch.testing.assert_close(scaled, run(RULES[name], x, gradients), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["normalised", "adam"])
@pytest.mark.parametrize("size", [1e-16, 1e-20, 1e-24, 1e-30, 1e-38, 1e-44])
def test_a_tiny_gradient_in_single_precision_makes_no_giant_step(name: str, size: float) -> None:
    """Its square underflows: a saturated softmax gets there."""
    x = torch.zeros(1, 3, dtype=torch.float32)
    path = run(RULES[name], x, [torch.full_like(x, size)] * 3)
    assert float(path.diff(dim=0).abs().max()) <= 0.1 * 1.01


@pytest.mark.parametrize("name", ["normalised", "adam"])
def test_nor_does_a_huge_one(name: str) -> None:
    path = run(RULES[name], torch.zeros(1, 3), [torch.full((1, 3), 1e100)] * 3)
    assert float(path.diff(dim=0).abs().max()) <= 0.1 * 1.01


@each_rule
def test_a_sample_never_looks_at_another(rule: StepRule) -> None:
    x, gradients = torch.randn(4, 3), [torch.randn(4, 3) for _ in range(8)]
    together = run(rule, x, gradients)
    for i in range(4):
        alone = run(rule, x[i : i + 1], [grad[i : i + 1] for grad in gradients])
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=1e-12, atol=1e-14)


@each_rule
def test_a_nan_stays_in_its_row(rule: StepRule) -> None:
    x, gradients = torch.randn(3, 2), [torch.randn(3, 2) for _ in range(5)]
    clean = run(rule, x, gradients)
    spoilt = [grad.index_fill(0, torch.tensor([1]), torch.nan) for grad in gradients]
    others = torch.tensor([0, 2])
    assert torch.equal(run(rule, x, spoilt)[:, others], clean[:, others])


@each_rule
def test_the_state_of_one_solve_is_not_that_of_the_next(rule: StepRule) -> None:
    x, gradients = torch.randn(3, 2), [torch.randn(3, 2) for _ in range(5)]
    assert torch.equal(run(rule, x, gradients), run(rule, x, gradients))


@each_rule
def test_inputs_are_left_alone(rule: StepRule) -> None:
    x, grad = torch.randn(3, 2), torch.randn(3, 2)
    copies = x.clone(), grad.clone()
    run(rule, x, [grad, grad])
    assert torch.equal(x, copies[0]) and torch.equal(grad, copies[1])


def test_schedules() -> None:
    assert [Linear()(step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [Constant()(step, 10) for step in (0, 5, 9)] == [1.0, 1.0, 1.0]
    drop = Drop(at=65, factor=0.3)
    assert [drop(step, 100) for step in (0, 64, 65, 99)] == [1.0, 1.0, 0.3, 0.3]
    cosine = [Cosine()(step, 10) for step in range(10)]
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5) and 0 < cosine[9] < 0.05
    assert cosine == sorted(cosine, reverse=True)


@pytest.mark.parametrize("make", [lambda s: Plain(0.1, s), lambda s: Normalised(0.1, s), lambda s: Adam(0.1, schedule=s)])
def test_a_schedule_scales_the_step(make) -> None:  # noqa: ANN001
    x, gradients = torch.randn(2, 3), [torch.randn(2, 3) for _ in range(4)]
    full = run(make(None), x, gradients).diff(dim=0)
    dropped = run(make(Drop(at=2, factor=0.3)), x, gradients).diff(dim=0)
    torch.testing.assert_close(dropped[:2], full[:2])
    torch.testing.assert_close(dropped[2:], 0.3 * full[2:])
