"""The memory count sees what is allocated and alive."""

from __future__ import annotations

import pytest
import torch

from jiio_lightning.commands.memory import peak_mib


def work(device: str = "cpu") -> None:
    for _ in range(3):
        torch.zeros(2**20, device=device)  # 4 MiB each, freed before the next


def test_peak_mib_counts_live_memory_and_not_the_sum_of_allocations():
    assert 3.9 < peak_mib(work) < 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_was_there_does_not_count():
    kept = torch.zeros(2**24, device="cuda")
    assert 3.9 < peak_mib(lambda: work("cuda"), kept.device) < 6
