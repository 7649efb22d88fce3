"""A function of tensors as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIMIT = 16
"""Graphs that one Captured keeps, the last ones: each holds memory, and batches of ever new shapes would fill the device."""

Function = Callable[..., list[Tensor]]
Recording = tuple[Callable[[], None], list[Tensor]]
"""A replay, and the tensors that each replay writes to."""


class Captured:
    """Calls a function of tensors, from the second call on by replaying it as one CUDA graph.

    A solve of a small net is thousands of short kernels, and the device waits for the host to launch them; a graph is launched at
    once. What it launches is frozen: the function may read only its inputs, what ``key`` names, and what is changed in place
    (weights, by an optimiser). It may not wait for the device, nor draw random numbers on the host.

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

    def __reduce__(self) -> tuple[type[Captured], tuple[()]]:
        return type(self), ()  # a copy has recorded nothing

    def __call__(self, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
        """``function(*inputs)``, which may be overwritten by the next call.

        Args:
            key: all that the function depends on besides, as :func:`settings` gives it.

        Raises:
            ValueError: if it cannot be recorded.
        """
        key = key, tuple((given.shape, given.dtype, given.device) for given in inputs)
        if key not in self._graphs:
            # The first call as it is: caches are filled and kernels chosen, and a batch that comes once is never recorded.
            if key not in self._seen:
                if len(self._seen) == LIMIT:
                    self._seen.clear()
                self._seen.add(key)
                return function(*inputs)
            if len(self._graphs) == LIMIT:
                del self._graphs[next(iter(self._graphs))]
            self._seen.remove(key)
            static = [given.clone() for given in inputs]
            self._graphs[key] = static, *self.record(lambda: function(*static), static[0].device)
        static, replay, outputs = self._graphs[key]
        for place, given in zip(static, inputs, strict=True):
            place.copy_(given)
        replay()
        return outputs

    def record(self, run: Callable[[], list[Tensor]], device: torch.device) -> Recording:
        """Record a call without arguments. All graphs share their memory, since only the last one's outputs are looked at."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(device),
                torch.cuda.stream(torch.cuda.current_stream(device)),  # which is put back whatever happens
                # thread_local: a loader that pins memory in another thread does not disturb
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                outputs = run()
        except RuntimeError as error:
            raise ValueError(
                f"the solve cannot be captured as a CUDA graph: set solver.capture: false ({str(error).splitlines()[0]})"
            ) from error
        return graph.replay, outputs


def settings(thing: Any, without: Sequence[str] = (), above: tuple[int, ...] = ()) -> Hashable:
    """What a computation with ``thing`` depends on: numbers and names in its public attributes and in theirs, places of tensors.

    Args:
        thing: a module, a solver, or anything with attributes.
        without: names of attributes of it that do not matter.
        above: identities of what it is a part of, where a circle ends.

    Example:
        >>> from jiio_lightning.core import Joint
        >>> solver = Joint(max_steps=8)
        >>> before = settings(solver)
        >>> solver.step.size = 0.5
        >>> settings(solver) == before
        False
        >>> solver.step.size = 1.0
        >>> settings(solver) == before
        True
    """
    if isinstance(thing, np.generic) or (isinstance(thing, Tensor) and not thing.ndim and thing.device.type == "cpu"):
        thing = thing.item()  # a graph has the number, not the place
    if thing is None or isinstance(thing, bool | int | float | str | type | Enum):
        return thing
    if isinstance(thing, Tensor):
        return thing.data_ptr(), thing.dtype, thing.shape, thing.stride()
    if id(thing) in above or isinstance(thing, FunctionType | MethodType):
        return id(thing)
    above = (*above, id(thing))
    if isinstance(thing, list | tuple):
        return tuple([settings(part, (), above) for part in thing])
    if isinstance(thing, nn.Module):
        named: dict[str, Any] | None = vars(thing) | thing._parameters | thing._buffers | thing._modules
    elif isinstance(thing, dict):
        named = thing
    else:
        named = getattr(thing, "__dict__", None)
    if not named:  # a partial function, an object with slots
        return type(thing), id(thing)
    public = [(name, part) for name, part in named.items() if str(name)[:1] != "_" and name not in without]
    return type(thing), tuple([(name, settings(part, (), above)) for name, part in public])
