"""What is recorded and when; that a recording sees new inputs and weights. The graph itself needs a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jiio_lightning.core import capture
from jiio_lightning.core.capture import Captured, settings


class Repeated(Captured):
    """Stands in for CUDA graphs on a processor: a replay calls the function again and writes to the same places."""

    device = "cpu"

    def record(self, run: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
        outputs = [output.clone() for output in run()]

        def replay() -> None:
            for place, new in zip(outputs, run(), strict=True):
                place.copy_(new)

        return replay, outputs


class Stale(Repeated):
    """Replays what it has recorded whatever Python has changed since, as a CUDA graph does, and whatever the inputs."""

    def record(self, run: Callable[[], list[Tensor]], device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
        outputs = run()
        return lambda: None, outputs


KINDS = [Repeated, pytest.param(Captured, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture(params=KINDS)
def captured(request) -> Captured:
    return request.param()


def test_replays_see_new_inputs_and_weights_that_changed_in_place(captured):
    weight, calls = torch.ones(3, device=captured.device), []

    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        calls.append(x)
        return [weight * x, x + y]

    answers = []
    for step in range(5):
        weight.fill_(step + 1)
        x = torch.full((3,), float(step), device=captured.device)
        answers.append([answer.clone() for answer in captured("a", function, [x, 2 * x])])
        x.fill_(torch.nan)  # the inputs are the caller's
    assert [answer[0].tolist() for answer in answers] == [[(step + 1.0) * step] * 3 for step in range(5)]
    assert [answer[1].tolist() for answer in answers] == [[3.0 * step] * 3 for step in range(5)]
    assert calls[0].isnan().all() and (isinstance(captured, Repeated) or len(calls) == 2)  # the first call is as it is


def test_another_key_or_shape_is_another_recording(captured):
    def call(key: str, size: int, factor: float) -> float:
        return captured(key, lambda x: [factor * x], [torch.ones(size, device=captured.device)])[0].sum().item()

    for _ in range(3):
        assert call("a", 2, 10.0) == 20 and call("a", 3, 10.0) == 30 and call("b", 2, 7.0) == 14
    assert call("a", 2, 0.0) == 20  # a key that does not name all that changes


def test_batches_of_ever_new_shapes_do_not_fill_the_device(captured, monkeypatch):
    monkeypatch.setattr(capture, "LIMIT", 2)
    for size in (1, 1, 2, 2, 3, 3, 3, 1, 1, 4, 5, 6, 7):
        assert captured("a", lambda x: [2 * x], [torch.ones(size, device=captured.device)])[0].sum().item() == 2 * size
    assert [inputs[0][0][0] for _, inputs in captured._graphs] == [3, 1] and len(captured._seen) <= 2


def test_a_copy_has_recorded_nothing(captured):
    for _ in range(2):
        captured("a", lambda x: [2 * x], [torch.ones(2, device=captured.device)])
    assert type(copy.deepcopy(captured)) is type(captured) and captured._graphs and not copy.deepcopy(captured)._graphs


Plain = Enum("Plain", ["ZERO", "ONE", "TWO"])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain, self.inside = nn.Linear(2, 2), -1.0, SimpleNamespace(sizes=[1, 2], of=self, kind=Plain.ZERO)
        self.register_buffer("shift", torch.zeros(2))
        self.weight, self.single = torch.tensor(1.0), np.float32(1.0)
        self.matrix = self.view = torch.zeros(2, 2)
        self.part = partial(len, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "gain", 2.0),
        lambda net: net.inside.sizes.append(3),
        lambda net: setattr(net.inside, "kind", Plain.ONE),
        lambda net: setattr(net.inside, "kind", Plain.TWO),
        lambda net: net.eval(),
        lambda net: setattr(net.layer, "weight", nn.Parameter(torch.zeros(2, 2))),
        lambda net: setattr(net, "shift", torch.zeros(2)),
        lambda net: setattr(net, "layer", nn.Identity()),
        lambda net: setattr(net.inside, "of", len),
        lambda net: setattr(net, "gain", -2.0),
        lambda net: net.weight.fill_(2.0),
        lambda net: setattr(net, "single", np.float32(2.0)),
        lambda net: setattr(net, "view", net.matrix.T),
        lambda net: setattr(net, "part", partial(len, 8)),
    ],
)
def test_settings_see_what_is_changed(change):
    net = Net()
    before = settings(net)
    with torch.no_grad():  # in place
        net.layer.weight.fill_(3.0)
        net.shift.fill_(3.0)
    net._private = 7
    assert settings(net) == before
    kept = net.layer.weight, net.shift  # else their places may be taken by the new ones
    change(net)
    assert settings(net) != before and len(kept) == 2


def test_settings_without_some():
    net = Net()
    before = settings(net, without=("gain", "layer"))
    net.gain, net.layer.weight = 2.0, nn.Parameter(torch.zeros(2, 2))
    assert settings(net, without=("gain", "layer")) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_function_that_waits_is_one_clear_error():
    captured, x = Captured(), torch.ones(2, device="cuda")
    assert captured("a", lambda x: [x * float(x.sum())], [x])[0].tolist() == [2, 2]
    stream = torch.cuda.current_stream()
    with pytest.raises(ValueError, match="cannot be captured as a CUDA graph: set solver.capture: false"):
        captured("a", lambda x: [x * float(x.sum())], [x])
    assert torch.cuda.current_stream() == stream
