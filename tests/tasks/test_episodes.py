"""The metrics of a task."""

from __future__ import annotations

import math

import pytest
import torch

from jiio_lightning.tasks.episodes import episode_metrics


def test_accuracy_is_the_share_of_right_answers_and_loss_their_mean_cross_entropy():
    logits = torch.log(torch.tensor([[[0.7, 0.3], [0.6, 0.4]], [[0.5, 0.5 + 1e-6], [0.2, 0.8]]]))
    metrics = episode_metrics(logits, torch.tensor([[0, 1], [1, 1]]))
    assert metrics["accuracy"].tolist() == [0.5, 1.0]
    assert metrics["loss"].tolist() == pytest.approx([-math.log(0.7 * 0.4) / 2, -math.log(0.5 * 0.8) / 2], abs=1e-5)
