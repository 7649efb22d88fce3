"""A tiny smooth classifier in float64, and targets made of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jiio_lightning.attacks import Target, ThreatModel
from jiio_lightning.core import Joint
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.data import ImageBatch
from jiio_lightning.models import Classifier
from jiio_lightning.tasks import AdversarialTraining

TIGHT = FixedPoint(Picard(), 400, tol=1e-14)


class Smooth(Classifier):
    """f = 0.6 tanh(W z + U x + b), a linear head: 5 hidden numbers, 6 pixels, 3 classes."""

    num_classes = 3
    image_shape = (1, 2, 3)
    hidden = 5

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64) / 2)

        self.recurrent, self.inject, self.bias, self.head = draw(5, 5), draw(6, 5), draw(5), draw(5, 3)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.6 * torch.tanh(z @ self.recurrent + x @ self.inject + self.bias)

    def h(self, z: Tensor) -> Tensor:
        return 3 * z @ self.head


class Begins(Joint):
    """Notes where it begins."""

    def __call__(self, problem, v0, observers=()):
        self.v0 = v0
        return super().__call__(problem, v0, observers)


def resolve(problem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    solution = TIGHT(lambda z: problem.f(z, x), x.new_zeros(len(x), hidden))
    return solution.value, solution.residual


def target(threat: ThreatModel, size: int = 4, net: Classifier | None = None, seed: int = 0) -> Target:
    generator = torch.Generator().manual_seed(seed + 1)
    image = torch.rand(size, 1, 2, 3, generator=generator, dtype=torch.float64)
    batch = ImageBatch(image, torch.arange(size) % 3, torch.arange(size))
    net = Smooth(seed) if net is None else net
    problem = AdversarialTraining(net, threat.eps, threat.norm, threat.pixel_box).problem(batch)
    return Target(problem, net, *batch, threat, resolve)
