"""An interrupted run that goes on is the run: weights, optimiser, order of the data and probes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import metrics

STEPS = ("--trainer.max_steps", 6, "--trainer.val_check_interval", 4, "--jacobian.probes", 2)
EVERY = "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint"
SAVE = (
    EVERY,
    "--trainer.callbacks.dirpath=every",
    "--trainer.callbacks.every_n_train_steps=1",
    "--trainer.callbacks.save_top_k=-1",
)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("at", [(0, 3), (0, 4)], ids=["within an epoch", "at the end of an epoch of 4 batches"])
def test_a_resumed_run_is_the_run(jiio, at):
    assert jiio("fit", "--config", "tiny.yaml", *STEPS, *SAVE) == 0
    assert torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    whole, rows = weights(Path("runs/tiny/checkpoints/last.ckpt")), metrics(Path("runs/tiny"))
    one, two = (weights(Path(f"every/epoch=0-step={step}.ckpt")) for step in (3, 4))
    assert not any(tensor.equal(two[name]) for name, tensor in one.items() if tensor.ndim > 1), "the weights move"
    checkpoint = "every/epoch={}-step={}.ckpt".format(*at)
    assert jiio("fit", "--config", "tiny.yaml", *STEPS, "--ckpt_path", checkpoint) == 0
    resumed = weights(Path("runs/tiny/checkpoints/last.ckpt"))
    assert all(tensor.equal(resumed[name]) for name, tensor in whole.items())
    assert metrics(Path("runs/tiny")) == rows, "nothing twice, nothing left out"
