"""Reptile's step is the mean of the moves of a loop over tasks, each with torch's own Adam."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.baselines import Reptile
from experiments.baselines.fewshot.reptile import Share
from tests.experiments.baselines.fewshot.conftest import Smooth, episodes, gradient


def learned(task: Reptile, minibatches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The weights that torch.optim.Adam with beta_1 = 0 ends at."""
    net = copy.deepcopy(task.net)
    optimizer = torch.optim.Adam(net.parameters(), lr=task.inner_rate, betas=(0.0, 0.999))
    for image, label in minibatches:
        optimizer.zero_grad()
        F.cross_entropy(net(image), label).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def test_the_step_is_that_of_a_loop():
    task, batch = Reptile(Smooth(), inner_rate=0.01, steps=2, learning_rate=0.5), episodes(shots=1, queries=3)
    ends = []
    for i in range(4):
        drawings = torch.cat([batch.support[i].view(3, 1, 1, 4, 4), batch.query[i].view(3, 3, 1, 4, 4)], dim=1)  # (N, K + Q, ...)
        label = torch.arange(3).repeat(2)
        ends.append(learned(task, [(drawings[:, at].transpose(0, 1).flatten(0, 1), label) for at in ([0, 1], [2, 3])]))
    theta = task.theta.detach()
    moves = torch.stack(ends) - theta
    torch.testing.assert_close(-gradient(task, batch), moves.mean(dim=0), rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(task.outer(batch)[1]["distance"], moves.norm(dim=1), rtol=1e-6, atol=1e-10)


def test_the_optimiser_moves_by_epsilon_and_comes_to_rest():
    task, batch = Reptile(Smooth(), inner_rate=0.01, learning_rate=Share(0.5)), episodes()
    task.trainer = type("Run", (), {"estimated_stepping_batches": 4})()
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert type(optimizer.param_groups[0]["lr"]) is float, "a checkpoint holds it, and loads no other types"
    theta, direction = task.theta.detach().clone(), gradient(task, batch)
    task.outer(batch)[0].mean().backward()
    optimizer.step()
    torch.testing.assert_close(task.theta.detach(), theta - 0.5 * direction)
    sizes = []
    for _ in range(4):
        sizes.append(schedule.get_last_lr()[0])
        schedule.step()
    assert sizes == pytest.approx([0.5, 0.375, 0.25, 0.125]) and schedule.get_last_lr()[0] == 0


def test_minibatches_deal_out_every_drawing_once():
    task, batch = Reptile(Smooth(), steps=2), episodes(tasks=2, shots=1, queries=3)
    image, label = task.minibatches(batch)
    assert image.shape == (2, 2, 6, 1, 4, 4) and label.shape == (2, 2, 6)
    assert all(part.bincount().tolist() == [2, 2, 2] for part in label.flatten(0, 1))
    owner = {bytes(i.numpy()): int(n) for i, n in zip(batch.support[0], batch.support_label[0], strict=True)}
    owner |= {bytes(i.numpy()): int(n) for i, n in zip(batch.query[0], batch.query_label[0], strict=True)}
    dealt = [(bytes(i.numpy()), int(n)) for i, n in zip(image[0].flatten(0, 1), label[0].flatten(), strict=True)]
    assert len(set(dealt)) == 12 and dict(dealt) == owner


def test_few_drawings_come_again():
    image, label = Reptile(Smooth(), steps=3).minibatches(episodes(tasks=1, shots=1, queries=1))
    assert image.shape[1:3] == (3, 3) and image[:, 2].equal(image[:, 0]) and not image[:, 1].equal(image[:, 0])


def test_evaluation_learns_from_the_support_images_alone():
    task, batch = Reptile(Smooth(), inner_rate=0.01, eval_steps=5).eval(), episodes()
    pair = batch.support[0], batch.support_label[0]
    torch.testing.assert_close(task.adapt(batch.support, batch.support_label)[0], learned(task, [pair] * 5), rtol=1e-6, atol=1e-9)


def test_a_step_is_a_part_of_the_way():
    assert Share(1) == 1
    for size in (0.0, 1.5):
        with pytest.raises(ValueError, match="does not conform to restriction v>0 and v<=1"):
            Share(size)
