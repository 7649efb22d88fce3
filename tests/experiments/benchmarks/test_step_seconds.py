from __future__ import annotations

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.benchmarks import StepSeconds

CLOCK = [0.0]


class Sleeper(LightningModule):
    """Steps of known lengths; the first is the longest."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.weight, self.seconds = torch.nn.Parameter(torch.zeros(1)), seconds

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        CLOCK[0] += self.seconds[batch_idx]
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("skip, wanted", [(1, 0.04), (0, 0.06)])
def test_the_median_of_all_steps_but_the_first(tmp_path, monkeypatch, skip, wanted):
    monkeypatch.setattr("experiments.benchmarks.step_seconds.time.perf_counter", lambda: CLOCK[0])
    trainer = Trainer(
        max_epochs=1,
        callbacks=[StepSeconds(skip)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Sleeper([0.3, 0.04, 0.08, 0.02][: 4 if skip else 2] + ([] if skip else [0.08, 0.04])), DataLoader(range(4)))
    assert float(trainer.callback_metrics["train/seconds"]) == pytest.approx(wanted, rel=1e-6)
