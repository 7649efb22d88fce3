"""Checkpoints of which the last one is the end of the run."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class FinalCheckpoint(ModelCheckpoint):
    """ModelCheckpoint whose ``last.ckpt`` holds the last step.

    Lightning's is as old as the last validation: 350 steps with a validation after each 100 would leave the weights of step 300.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self.save_last is True and self.last_model_path:
            trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
