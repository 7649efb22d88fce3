"""Pictures of what a task was given, above what it made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from jiio_lightning.callbacks.media import log_picture
from jiio_lightning.files import whole_file
from jiio_lightning.tasks.interface import LatentModel


class ImageGrid(Callback):
    """Saves a grid of the first images of the first validation or test batch, the task's ``panels`` one below the other.

    Generation: original, reconstruction. Inverse: corrupted, recovered, original (Figures 7 to 12).

    The PNG goes to ``<run folder>/images`` and to the loggers that take images (TensorBoard, Weights & Biases).

    Args:
        count: images a row.
        enlarge: pixels for each pixel, so that small images can be seen.
    """

    def __init__(self, count: PositiveInt = 16, enlarge: PositiveInt = 4) -> None:
        self.count = count
        self.enlarge = enlarge

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            self._save(trainer, pl_module, batch, "val", f"val_{trainer.global_step:07d}.png")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:
            self._save(trainer, pl_module, batch, "test", "test.png")

    def _save(self, trainer: Trainer, task: LightningModule, batch: Any, stage: str, name: str) -> None:
        if not trainer.is_global_zero or not isinstance(task, LatentModel):
            return
        first = type(batch)(*(part[: self.count] for part in batch))
        grid = picture(torch.cat(list(task.panels(first).values())), len(first.image), self.enlarge)
        path = Path(trainer.default_root_dir) / "images" / name
        with whole_file(path) as part:
            save_image(grid, part)
        log_picture(trainer, f"images/{stage}", grid, path)


def picture(images: Tensor, columns: int, enlarge: int) -> Tensor:
    """Images ``(N, C, H, W)`` in [-1, 1] as one RGB picture ``(3, ., .)`` in [0, 1], ``columns`` a row."""
    large = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    return ((make_grid(large, nrow=columns) + 1) / 2).clamp(0, 1)
