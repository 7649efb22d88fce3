"""Peak memory of some work, on the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_mib(work: Callable[[], Any], device: torch.device | None = None) -> float:
    """Peak of the memory that some work allocates above what was there, in MiB.

    Args:
        work: what is done, once.
        device: on a GPU its allocator knows; on a CPU, the default, the profiler's record of allocations.
    """
    if device is not None and device.type == "cuda":
        return _peak_cuda(work, device) / 2**20
    return _peak_cpu(work) / 2**20


def _peak_cpu(work: Callable[[], Any]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    used = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            used += event.nbytes()
            peak = max(peak, used)
    return peak


def _peak_cuda(work: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
