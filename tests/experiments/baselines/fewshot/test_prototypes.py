"""Prototypical networks: distances written by hand, and classes that training has more of."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import Conv4, PrototypicalNetwork
from experiments.baselines.fewshot.prototypes import prototypes
from tests.experiments.baselines.fewshot.conftest import SHAPE, episodes


def task(norm: str = "running") -> PrototypicalNetwork:
    return PrototypicalNetwork(Conv4(SHAPE, None, filters=5, norm=norm, strided=True))


@pytest.mark.parametrize("norm", ["running", "group"])
def test_logits_are_distances_to_the_mean_embeddings(norm):
    module, batch = task(norm).eval(), episodes()
    logits = module.logits(batch)
    assert logits.shape == (4, 9, 3)
    for i in range(4):
        support, query = module.net(batch.support[i]), module.net(batch.query[i])
        means = torch.stack([support[2 * n : 2 * n + 2].mean(dim=0) for n in range(3)])
        torch.testing.assert_close(logits[i], -(torch.cdist(query, means) ** 2), rtol=1e-6, atol=1e-9)


def test_prototypes_need_no_order_of_the_images():
    embedding, order = torch.randn(1, 6, 4), torch.tensor([3, 0, 5, 2, 4, 1])
    label = torch.tensor([[0, 0, 1, 1, 2, 2]])
    torch.testing.assert_close(prototypes(embedding[:, order], label[:, order]), embedding.view(1, 3, 2, 4).mean(dim=2))


def test_training_may_have_more_classes_than_a_test():
    module = task()
    value, metrics = module.outer(episodes(ways=6))
    assert value.shape == (4,) and metrics["loss"].equal(value.detach())
    assert module.logits(episodes(ways=3)).shape[2] == 3


def test_tasks_are_judged_alone():
    module, batch = task().eval(), episodes()
    torch.testing.assert_close(module.logits(type(batch)(*(part[1:2] for part in batch))), module.logits(batch)[1:2])


def test_nets_that_it_cannot_take():
    with pytest.raises(ValueError, match="num_classes to null"):
        PrototypicalNetwork(Conv4(SHAPE, 3, strided=True))
    with pytest.raises(ValueError, match="norm to running or group"):
        task("episode")
