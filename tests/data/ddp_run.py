"""Two processes on this machine train, stop, go on and evaluate; each writes down which samples it saw.

Run by test_ddp.py: ``python ddp_run.py ROOT OUT``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torchmetrics import MeanMetric

from jiio_lightning.cli import leave_process_group
from jiio_lightning.data import Digits


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.mean = MeanMetric()
        self.seen = {"train": [], "val": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch.index.tolist())
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch.index.tolist())
        # not self.log(..., sync_dist=True): Lightning 2.6 truncates the mean of the processes' uneven counts to an integer
        self.mean(batch.index.float())
        self.log("mean", self.mean)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch.index.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callbacks: Sequence[Callback] = ()) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",  # test_ddp.py starts both processes
        max_epochs=2,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def main(root: str, out: Path) -> None:
    data = Digits(root=root, batch_size=4, train_limit=43, val_limit=15, test_limit=9, flip=True)
    save = ModelCheckpoint(out, filename="seven", every_n_train_steps=7)
    runs = []
    for callbacks, checkpoint in (((save,), None), ((), out / "seven.ckpt")):
        module, runner = Recorder(), trainer(callbacks)
        runner.fit(module, data, ckpt_path=checkpoint)
        runs.append({**module.seen, "mean": float(runner.callback_metrics["mean"])})
    module, runner = Recorder(), trainer()
    runner.test(module, data, verbose=False)
    runs.append(module.seen)
    (out / f"rank{runner.global_rank}.json").write_text(json.dumps(runs))
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
