"""The optimiser of every task."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from torch.optim.lr_scheduler import OneCycleLR

from jiio_lightning.models.lipschitz import has_bounds, tighten


class OneCycle(OneCycleLR):
    """A one-cycle schedule whose length and peak are the present run's, also where it goes on from a checkpoint of others."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the place in the schedule, not the schedule. The optimiser's state has to be there already."""
        groups, peak = self.optimizer.param_groups, self.optimizer.defaults["lr"]
        before = state_dict["total_steps"], groups[0]["max_lr"]
        own = {"total_steps": self.total_steps, "_schedule_phases": self._schedule_phases}
        super().load_state_dict(state_dict | own)
        if before == (self.total_steps, peak):
            return
        for group in groups:
            scale = peak / group["max_lr"]
            group |= {name: scale * group[name] for name in ("initial_lr", "max_lr", "min_lr")}
        self._get_lr_called_within_step = True  # else it warns
        for group, rate in zip(groups, self.get_lr(), strict=True):
            group["lr"] = rate
        rank_zero_info(
            f"learning rate: from step {self.last_epoch} on as in a run of {self.total_steps} steps with a peak of {peak:g}; "
            f"the checkpoint is of one of {before[0]} with a peak of {before[1]:g}"
        )


def adam(module: LightningModule, learning_rate: float, one_cycle: bool) -> Any:
    """Adam for all weights of a module (Table 9), as ``configure_optimizers`` returns it.

    The learning rate is constant or, with ``one_cycle`` (Smith 2018), the peak of a warm-up and annealing over the run; a
    ValueError if that has no end. After each step the bounds on spectral norms follow the weights.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=float(learning_rate))
    if has_bounds(module):
        # not in the forward pass: f is one function until the next step, and the same in a checkpoint
        optimizer.register_step_post_hook(lambda *_: tighten(module))
    if not one_cycle:
        return optimizer
    steps = run_length(module, "one_cycle", "one_cycle: false")
    scheduler = OneCycle(optimizer, float(learning_rate), total_steps=steps)
    # Lightning would step it once an epoch.
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def run_length(module: LightningModule, reason: str, alternative: str = "") -> int:
    """Steps of the whole run; a ValueError if it has no end, with the reason why it needs one."""
    steps = module.trainer.estimated_stepping_batches
    if steps == float("inf"):
        ways = ", or ".join(filter(None, ["set trainer.max_steps or trainer.max_epochs", alternative]))
        raise ValueError(f"{reason} needs the length of the run: {ways}")
    return int(steps)
