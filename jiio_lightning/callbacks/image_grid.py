"""Pictures next to the numbers: targets above their reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torchvision.utils import make_grid, save_image

from jiio_lightning.tasks.generation import Generation


class ImageGrid(Callback):
    """Saves a grid target / feasible reconstruction of the first images of the first validation or test batch.

    The PNG goes to ``<run folder>/images`` and to the loggers that take images.

    Args:
        count: images a row.
        enlarge: pixels for each pixel, so that small images can be seen.
    """

    def __init__(self, count: int = 16, enlarge: int = 4) -> None:
        self.count = count
        self.enlarge = enlarge

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            self._save(trainer, pl_module, batch, f"val_{trainer.global_step:07d}")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:
            self._save(trainer, pl_module, batch, "test")

    def _save(self, trainer: Trainer, task: LightningModule, batch: Any, name: str) -> None:
        if not trainer.is_global_zero or not isinstance(task, Generation):
            return
        first = type(batch)(*(part[: self.count] for part in batch))
        rows = torch.cat([first.image, task.reconstruct(first)])
        grid = make_grid(rows.repeat_interleave(self.enlarge, 2).repeat_interleave(self.enlarge, 3), nrow=len(first.image))
        path = Path(trainer.default_root_dir) / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image((grid + 1) / 2, path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(key=f"images/{name.split('_')[0]}", images=[str(path)])
