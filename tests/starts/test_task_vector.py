"""The start of task vectors."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.starts import TaskVector
from jiio_lightning.starts.task_vector import class_means


def test_it_finds_a_linear_rule_and_ignores_features_that_say_nothing():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(300, 6, generator=draw) * torch.tensor([1.0, 10.0, 0.1, 1.0, 0.0, 5.0]) + 3
    rule = torch.randn(6, 2, generator=draw)
    learned = TaskVector()
    learned.fit({"x": features[:200] @ rule + 1, "features": features[:200]})
    wanted = features[200:] @ rule + 1
    assert (learned(features[200:]) - wanted).square().mean() < 1e-3 * wanted.var()


def test_noise_is_met_by_a_strong_ridge():
    """More features than tasks, a target that does not depend on them: near the mean, least squares would be far off."""
    draw = torch.Generator().manual_seed(0)
    features, x = torch.randn(100, 150, generator=draw), 2 + torch.randn(100, 3, generator=draw)
    learned = TaskVector()
    learned.fit({"x": x[:50], "features": features[:50]})
    assert (learned(features[50:]) - x[50:]).square().mean() < 1.5


def test_too_few_tasks():
    with pytest.raises(ValueError, match="needs at least 32 solved samples, there are 31"):
        TaskVector().fit({"x": torch.zeros(31, 2), "features": torch.zeros(31, 4)})


def test_means_of_classes_stand_in_the_order_of_the_labels():
    features = torch.tensor([[[1.0], [2.0], [5.0], [6.0]]])
    assert class_means(features, torch.tensor([[1, 0, 1, 0]])).tolist() == [[4.0, 3.0]]
