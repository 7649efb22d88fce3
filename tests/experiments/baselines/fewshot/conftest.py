"""Small tasks and a small smooth net, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from experiments.baselines import Conv4
from experiments.baselines.fewshot import GradientBased
from jiio_lightning.data import EpisodeBatch

SHAPE = (1, 4, 4)


class Smooth(Conv4):
    """A classifier with two derivatives everywhere, in the place of Conv4."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(SHAPE, num_classes, filters=1, strided=True)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Softplus(), nn.Linear(6, num_classes))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def episodes(
    tasks: int = 4, ways: int = 3, shots: int = 2, queries: int = 3, shape: tuple[int, int, int] = SHAPE
) -> EpisodeBatch:
    """Random images whose mean says a little about their class."""

    def images(count: int) -> tuple[Tensor, Tensor]:
        label = torch.arange(ways).repeat_interleave(count).expand(tasks, -1)
        return torch.randn(tasks, ways * count, *shape) + label[..., None, None, None], label

    return EpisodeBatch(*images(shots), *images(queries), torch.arange(tasks))


def gradient(task: GradientBased, batch: EpisodeBatch) -> Tensor:
    """What the optimiser gets, ``(P,)``."""
    value, _ = task.outer(batch)
    return nn.utils.parameters_to_vector(torch.autograd.grad(value.mean(), list(task.net.parameters())))


def slope(function: Callable[[Tensor], Tensor], theta: Tensor, direction: Tensor, size: float = 1e-5) -> Tensor:
    """The central difference of a function of theta ``(P,)`` along a direction."""
    return (function(theta + size * direction) - function(theta - size * direction)) / (2 * size)
