"""The start of attacks."""

from __future__ import annotations

import torch

from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.starts import ClassPerturbation


def test_each_class_has_the_mean_of_its_own():
    learned = ClassPerturbation()
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, -1.0]])
    learned.fit({"x": x, "label": torch.tensor([2, 2, 0])})
    wanted = {0: [0.0, -1.0], 1: [0.0, 0.0], 2: [2.0, 1.0], 5: [0.0, 0.0]}
    for label, direction in wanted.items():
        assert learned(torch.tensor([label])).tolist() == [direction]


def test_the_farthest_allowed_perturbation_along_a_direction():
    image, direction = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.5]]), torch.tensor([[3.0, -4.0], [0.0, 0.0], [3.0, -4.0]])
    l2 = ThreatModel(0.5).farthest(image, direction)
    assert torch.allclose(l2, torch.tensor([[0.3, -0.4], [0.0, 0.0], [0.3, -0.4]]))
    linf = ThreatModel(0.2, "linf").farthest(image, direction)
    assert torch.allclose(linf, torch.tensor([[0.2, -0.2], [0.0, 0.0], [0.2, -0.2]]))
    corner = ThreatModel(0.5, pixel_box=True)
    dark = torch.zeros(1, 2)
    assert torch.allclose(corner.farthest(dark, torch.tensor([[3.0, -4.0]])), torch.tensor([[0.5, 0.0]]), atol=1e-6), "all of eps"
    boxed = ThreatModel(0.2, "linf", pixel_box=True).farthest(image, direction)
    assert torch.allclose(boxed[2], torch.tensor([0.1, -0.2]))
