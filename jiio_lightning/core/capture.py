"""A function of tensors as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

LIMIT = 16
"""Graphs that one Captured keeps: each holds memory, and batches of ever new shapes would fill the device."""

Function = Callable[..., list[Tensor]]
Recording = tuple[Callable[[], None], list[Tensor]]
"""A replay, and the tensors that each replay writes to."""


class Captured:
    """Calls a function of tensors, from the second call on by replaying it as one CUDA graph.

    A solve of a small net is thousands of short kernels, and the device waits for the host to launch them; a graph is launched at
    once. What it launches is frozen, so that the function may read nothing that changes but its inputs and what is changed in
    place (weights, by an optimiser); may not wait for the device, nor draw random numbers on the host.

    Example:
        ::

            double, captured = lambda x: [2 * x], Captured()
            for x in torch.arange(4.0, device="cuda").split(1):
                captured("double", double, [x])  # the third and fourth are replays of what the second has recorded
    """

    device = "cuda"

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, tuple[list[Tensor], *Recording]] = {}
        self._pool: Any = None

    def __call__(self, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
        """``function(*inputs)``; ``key`` names all that the function depends on besides.

        Raises:
            ValueError: if it cannot be recorded.
        """
        key = key, tuple((given.shape, given.dtype, given.device) for given in inputs)
        if key not in self._graphs:
            # The first call as it is: caches are filled and kernels chosen, and a batch that comes once is never recorded.
            if key not in self._seen or len(self._graphs) == LIMIT:
                self._seen.add(key)
                return function(*inputs)
            static = [given.clone() for given in inputs]
            self._graphs[key] = static, *self.record(lambda: function(*static))
        static, replay, outputs = self._graphs[key]
        for place, given in zip(static, inputs, strict=True):
            place.copy_(given)
        replay()
        return [output.clone() for output in outputs]  # the next replay writes to the same places

    def record(self, run: Callable[[], list[Tensor]]) -> Recording:
        """Record a call without arguments. All graphs share their memory: what one leaves there is copied at once."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: a loader that pins memory in another thread does not disturb it
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = run()
        except RuntimeError as error:
            raise ValueError(
                f"the solve cannot be captured as a CUDA graph: set solver.capture: false ({str(error).splitlines()[0]})"
            ) from error
        return graph.replay, outputs
