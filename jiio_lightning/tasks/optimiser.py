"""The optimiser of every task."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule


def adam(module: LightningModule, learning_rate: float, one_cycle: bool) -> Any:
    """Adam for all weights of a module (Table 9), as ``configure_optimizers`` returns it.

    The learning rate is constant or, with ``one_cycle`` (Smith 2018), the peak of a warm-up and annealing over the run; a
    ValueError if that has no end.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    if not one_cycle:
        return optimizer
    steps = run_length(module, "one_cycle", "one_cycle: false")
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    # Lightning would step it once an epoch.
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def run_length(module: LightningModule, reason: str, alternative: str = "") -> int:
    """Steps of the whole run; a ValueError if it has no end, with the reason why it needs one."""
    steps = module.trainer.estimated_stepping_batches
    if steps == float("inf"):
        ways = ", or ".join(filter(None, ["set trainer.max_steps or trainer.max_epochs", alternative]))
        raise ValueError(f"{reason} needs the length of the run: {ways}")
    return int(steps)
