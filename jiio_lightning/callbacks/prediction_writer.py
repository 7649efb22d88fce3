"""What ``jiio predict`` leaves behind: arrays to compute with and a picture to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities import rank_zero_info
from torchvision.utils import save_image

from jiio_lightning.callbacks.classified import write_classified
from jiio_lightning.callbacks.image_grid import picture
from jiio_lightning.data import FewShotFolder


class PredictionWriter(BasePredictionWriter):
    """Writes every prediction of a task to ``<run folder>/predictions``.

    ``predictions.npz`` holds one array for each name that ``predict_step`` returns, one row a sample; for Generation these are
    latent ``(N, d)``, image ``(N, C, H, W)`` in [-1, 1], error ``(N,)`` and index ``(N,)``. ``images.png`` shows the first ones.
    Of several processes each writes its own share, to ``predictions_<rank>.npz``. Of a folder of images that a net of few-shot
    learning has named there are also ``predictions.csv`` and ``classified.png``.

    Args:
        count: images in the picture.
        enlarge: pixels for each pixel.
    """

    def __init__(self, count: int = 64, enlarge: int = 4) -> None:
        super().__init__(write_interval="epoch")
        self.count = count
        self.enlarge = enlarge

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        arrays = {name: torch.cat([batch[name] for batch in predictions]).cpu() for name in predictions[0]}
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        share = f"_{trainer.global_rank}" if trainer.world_size > 1 else ""
        np.savez(folder / f"predictions{share}.npz", **{name: array.numpy() for name, array in arrays.items()})
        if trainer.is_global_zero and "image" in arrays:
            save_image(picture(arrays["image"][: self.count], 16, self.enlarge), folder / "images.png")
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(data, FewShotFolder):
            write_classified(data, arrays["logits"][0], folder, self.count)
        rank_zero_info(f"predictions: {folder}/predictions{share}.npz with {', '.join(arrays)}")
