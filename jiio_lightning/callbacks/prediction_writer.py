"""What ``jiio predict`` leaves behind: arrays to compute with and a picture to look at."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torchvision.utils import save_image

from jiio_lightning.callbacks.gathering import gather_rows
from jiio_lightning.callbacks.image_grid import picture
from jiio_lightning.data import FewShotFolder
from jiio_lightning.files import whole_file

COLUMNS = 5
"""Images a row of ``classified.png``, unless there are more classes."""


class PredictionWriter(BasePredictionWriter):
    """Writes every prediction of a task to ``<run folder>/predictions``.

    ``predictions.npz`` holds one array for each name that ``predict_step`` returns, one row a sample; for Generation these are
    latent ``(N, d)``, image ``(N, C, H, W)`` in [-1, 1], error ``(N,)`` and index ``(N,)``. ``images.png`` shows the first ones.
    Those of several processes come together in the order of the data. If the data are a user's folder of few-shot images there
    are also ``predictions.csv`` and ``classified.png``.

    Args:
        count: images in the picture.
        enlarge: pixels for each pixel.

    Raises:
        ValueError: for predictions without names.
    """

    def __init__(self, count: PositiveInt = 64, enlarge: PositiveInt = 4) -> None:
        super().__init__(write_interval="epoch")
        self.count = count
        self.enlarge = enlarge

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if not isinstance(predictions[0], Mapping):
            raise ValueError(
                f"predictions.npz is by name: predict_step of {type(pl_module).__name__} has to return a dict of tensors, "
                "or trainer.callbacks a writer of your own"
            )
        if "index" in predictions[0]:
            arrays = {name: torch.from_numpy(array) for name, array in gather_rows(predictions).items()}
        else:  # of one signal, which each process has seen whole
            arrays = {name: torch.cat([batch[name] for batch in predictions]).cpu() for name in predictions[0]}
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "predictions"
        with ExitStack() as files:  # all of them or none

            def file(name: str) -> Path:
                return files.enter_context(whole_file(folder / name))

            np.savez(file("predictions.npz"), **{name: array.numpy() for name, array in arrays.items()})
            if "image" in arrays:
                save_image(picture(arrays["image"][: self.count], 16, self.enlarge), file("images.png"))
            data = trainer.datamodule  # type: ignore[attr-defined]
            if isinstance(data, FewShotFolder):
                write_table(data, arrays["logits"][0], file("predictions.csv"))
                classified(data, arrays["logits"][0], self.count).savefig(file("classified.png"), dpi=130, bbox_inches="tight")
        rank_zero_info(f"predictions: {folder}/predictions.npz with {', '.join(arrays)}")


def answers(data: FewShotFolder, logits: Tensor) -> tuple[list[str], list[float], Tensor]:
    """The class of each query image, its probability, and those of all classes ``(Q, N)``."""
    probability = logits.softmax(dim=1)
    best, chosen = (found.tolist() for found in probability.max(dim=1))
    return [data.classes[place] for place in chosen], best, probability


def write_table(data: FewShotFolder, logits: Tensor, path: Path) -> None:
    """Write a row for each query image, of which the logits are ``(Q, N)``: file, class, its and each class's probability."""
    names, best, probability = answers(data, logits)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "probability", *(f"probability of {name}" for name in data.classes)])
        writer.writerows(zip(data.files, names, best, *probability.T.tolist(), strict=True))


def classified(data: FewShotFolder, logits: Tensor, count: int) -> Figure:
    """The support images, a column a class, above the first ``count`` query images with their answers."""
    found = [f"{name}\n{share:.0%}" for name, share in zip(*answers(data, logits[:count])[:2], strict=True)]
    ways = len(data.classes)
    support = data.episode.support[0].unflatten(0, (ways, -1)).transpose(0, 1)  # (K, N, 1, H, W)
    columns, shots = max(ways, COLUMNS), len(support)
    rows = shots + -(-len(found) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.5 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False)
    for place in places.flat:
        place.axis("off")
    for row, images in zip(places, support, strict=False):
        for place, image, name in zip(row, images, data.classes, strict=False):
            _show(place, data, image, f"class {name}")
    for place, image, answer in zip(places[shots:].flat, data.episode.query[0], found, strict=False):
        _show(place, data, image, answer)
    return figure


def _show(place: Axes, data: FewShotFolder, image: Tensor, title: str) -> None:
    low, high = data.value_range
    place.imshow(image[0].numpy(), cmap="gray", vmin=low, vmax=high)
    place.set_title(title, fontsize="x-small", parse_math=False)
