"""The Frechet distance of a task's reconstructions, and of images decoded from a density of latents, during ``jiio test``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import move_data_to_device, rank_zero_info, rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from jiio_lightning.callbacks.gathering import gather_rows
from jiio_lightning.data import ImageBatch
from jiio_lightning.data.dataset import ImageDataset
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.sampler import EvalBatches
from jiio_lightning.metrics.extractors import Extractor
from jiio_lightning.metrics.frechet import Key, Statistics, bootstrap_deviation, frechet_distance
from jiio_lightning.metrics.intervals import NORMAL
from jiio_lightning.models.density import Density
from jiio_lightning.tasks.interface import LatentModel


class FrechetDistance(Callback):
    """Logs how far the images of a task are from the data's, over named features (Table 1, Table 4).

    ``test/<metric>_reconstruction`` is of the task's feasible reconstructions of the test images, ``test/<metric>_generation`` of
    images decoded from a density of the latents of training images (C.2), each with a 95 % interval ``_low``, ``_high`` over
    images; of no more images than features it has none, and a warning. ``<metric>`` is ``fid`` with Inception's features and
    ``frechet_<name of the extractor>`` with others. The reference, mean and covariance of the split's own features, is written to
    disk and read again only for the same weights, data and count.

    Args:
        extractor: of the features.
        reference: folder of the reference statistics.
        split: of the data whose images are the reference.
        resamples: of the bootstrap of the interval, at least 2; 0 leaves it out (with Inception's 2048 features each takes half a
            minute).
        density: of latents; without one nothing is generated.
        generated: images to generate.
        latents: training images to whose latents the density is fitted.
        batch_size: images at once in what the data module's own batches do not cover.
        seed: of the density, its samples and the bootstrap.

    Raises:
        ValueError: for a single resample, which has no deviation, or a single image to generate, which has no covariance.
    """

    def __init__(
        self,
        extractor: Extractor,
        reference: str = "runs/references",
        split: str = "test",
        resamples: NonNegativeInt = 20,
        density: Density | None = None,
        generated: PositiveInt = 10_000,
        latents: PositiveInt = 10_000,
        batch_size: PositiveInt = 250,
        seed: NonNegativeInt = 0,
    ) -> None:
        if resamples == 1:
            raise ValueError("the interval of a Frechet distance needs resamples >= 2, or 0 for none")
        if generated == 1:
            raise ValueError("a Frechet distance needs at least two images on each side: set generated higher")
        self.extractor = extractor
        self.reference = Path(reference)
        self.split = split
        self.resamples = resamples
        self.density = density
        self.generated = generated
        self.latents = latents
        self.batch_size = batch_size
        self.seed = seed
        self._batches: list[dict[str, Tensor]] = []
        self._truth: Statistics | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _images(trainer)
        if not isinstance(pl_module, LatentModel):
            raise ValueError(f"{type(pl_module).__name__} does not reconstruct images: leave out the FrechetDistance callback")
        self._batches = []
        # One process makes and reads the file: all would write it at once.
        found = self._reference_statistics(data, pl_module.device) if trainer.is_global_zero else None
        self._truth = trainer.strategy.broadcast(found)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        features = self.extractor(pl_module.reconstruct(batch))  # type: ignore[operator]
        self._batches.append({"features": features.cpu(), "index": batch.index.cpu()})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        features = gather_rows(self._batches)["features"]
        self._batches = []
        self._log(trainer, pl_module, "reconstruction", features if trainer.is_global_zero else None)
        if self.density is not None:
            latents = self._latents(trainer, pl_module)
            made = self._generated_features(self.density, latents, pl_module) if trainer.is_global_zero else None
            self._log(trainer, pl_module, "generation", made)

    def _log(self, trainer: Trainer, task: LightningModule, what: str, features: np.ndarray | None) -> None:
        """The distance of features that the first process holds."""
        metrics = None if features is None else self._distance(what, features)
        task.log_dict(trainer.strategy.broadcast(metrics))

    def _distance(self, what: str, features: np.ndarray) -> dict[str, float]:
        assert self._truth is not None  # on_test_start
        made = Statistics.of(features)
        value = frechet_distance(made, self._truth)
        name = f"test/{self.extractor.metric}_{what}"
        if made.singular or self._truth.singular:
            fewest, width = min(made.count, self._truth.count), made.mean.size
            rank_zero_warn(
                f"{name} is of {fewest} images and {width} features, whose covariance needs more images than features: it is "
                "mostly bias and has no interval, compare it with nothing"
            )
            return {name: value}
        if not self.resamples:
            return {name: value}
        half = NORMAL * bootstrap_deviation(features, self._truth, self.resamples, self.seed)
        return {name: value, f"{name}_low": max(value - half, 0.0), f"{name}_high": value + half}

    def _reference_statistics(self, data: ImageDataModule, device: torch.device) -> Statistics:
        """Of the data's own images, from the disk if they are there."""
        dataset = data.dataset(self.split)
        key = self._key(data, len(dataset))
        path = self.reference / f"{self.extractor.metric}_{data.name}_{self.split}_{len(dataset)}.npz"
        if path.is_file():
            return Statistics.load(path, key)
        features = [
            self.extractor(batch.image).cpu() for batch in _walk("reference", dataset, len(dataset), self.batch_size, device)
        ]
        statistics = Statistics.of(torch.cat(features).numpy())
        statistics.save(path, key)
        rank_zero_info(f"reference of {self.extractor.metric}: {path}, {statistics.count} images of {data.name}/{self.split}")
        return statistics

    def _key(self, data: ImageDataModule, count: int) -> Key:
        """All that the features of the reference are a function of; the manifest names the crop and the size."""
        manifest = data.prepared.manifest
        return {
            "metric": self.extractor.metric,
            "weights": self.extractor.fingerprint,
            "data": manifest.checksum,
            "recipe": manifest.recipe,
            "split": self.split,
            "count": count,
            "image_shape": list(data.image_shape),
        }

    def _latents(self, trainer: Trainer, task: LightningModule | Any) -> Tensor:
        """Of the first training images, each process its share, ``(N, d)``."""
        dataset = _images(trainer).dataset("train")
        place = (trainer.global_rank, trainer.world_size)
        batches = _walk("latents", dataset, min(self.latents, len(dataset)), self.batch_size, task.device, *place)
        rows = gather_rows([{"latent": task.encode(batch), "index": batch.index} for batch in batches])
        return torch.from_numpy(rows["latent"])

    def _generated_features(self, density: Density, latents: Tensor, task: LightningModule | Any) -> np.ndarray:
        """Of images decoded from the density fitted to ``latents``."""
        rank_zero_info(f"{type(density).__name__}: to be fitted to {len(latents)} latents")
        drawn = density.fit(latents, self.seed).sample(self.generated, self.seed).to(task.device, latents.dtype)
        batches = tqdm(drawn.split(self.batch_size), desc="samples", unit="batch")
        return torch.cat([self.extractor(task.decode(x)).cpu() for x in batches]).numpy()


def _images(trainer: Trainer) -> ImageDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageDataModule) or tuple(data.value_range) != (-1.0, 1.0):
        raise ValueError(
            "a Frechet distance needs a data module of images in [-1, 1]: leave out the callback, or set data.value_range"
        )
    return data


def _walk(
    what: str, dataset: ImageDataset, count: int, size: int, device: torch.device, rank: int = 0, world_size: int = 1
) -> Iterator[ImageBatch]:
    """The first ``count`` samples of a data set in batches, the share of one process."""
    draws = EvalBatches(range(count), size, rank, world_size)
    for draw in tqdm(draws, desc=what, unit="batch", disable=rank > 0):
        yield move_data_to_device(dataset[draw], device)
