"""Two processes with half of the batch each are one process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import metrics

STEPS = ("--trainer.max_steps", "3", "--trainer.precision", "64-true", "--trainer.num_sanity_val_steps", "0")


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Run it beside the block and wait for it; its second process ends with it whatever happens."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        try:
            yield
            _, complaint = process.communicate(timeout=600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, complaint.decode()


def run(command: list[str]) -> None:
    """Run it to its end."""
    with running(command):
        pass


def test_two_processes_give_the_weights_of_one(jiio):
    """After 3 steps with the Jacobian penalty, gradient clipping and the schedule of the learning rate."""
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--name", "two")
    with running([sys.executable, "-m", "jiio_lightning", "fit", "--config", "tiny.yaml", *STEPS, *two]):
        assert jiio("fit", "--config", "tiny.yaml", *STEPS, "--data.batch_size", 4, "--name", "one") == 0
    alone, shared = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("one", "two"))
    worst = max(float((tensor - shared[name]).abs().max()) for name, tensor in alone.items())
    assert worst < 1e-6, worst
    assert all(tensor.dtype == torch.float64 for tensor in alone.values())
    one, two = (next(row["val/error"] for row in metrics(Path(f"runs/{name}")) if row["val/error"]) for name in ("one", "two"))
    assert float(two) == pytest.approx(float(one), rel=1e-6), "the mean of both processes' images, not of the first one's"
