"""What is recorded and when; that a recording sees new inputs and weights. The graph itself needs a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jiio_lightning.core import capture
from jiio_lightning.core.capture import Captured


class Repeated(Captured):
    """Stands in for CUDA graphs on a processor: a replay calls the function again and writes to the same places."""

    device = "cpu"

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        outputs = [output.clone() for output in run()]

        def replay() -> None:
            for place, new in zip(outputs, run(), strict=True):
                place.copy_(new)

        return replay, outputs


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
        answers.append(captured("a", function, [x, 2 * x]))
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
    for size in (1, 2, 3) * 4:
        assert captured("a", lambda x: [2 * x], [torch.ones(size, device=captured.device)])[0].sum().item() == 2 * size
    assert len(captured._graphs) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_function_that_waits_is_one_clear_error():
    captured, x = Captured(), torch.ones(2, device="cuda")
    assert captured("a", lambda x: [x * float(x.sum())], [x])[0].tolist() == [2, 2]
    with pytest.raises(ValueError, match="cannot be captured as a CUDA graph: set solver.capture: false"):
        captured("a", lambda x: [x * float(x.sum())], [x])
