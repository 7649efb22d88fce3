"""``jiio sample``: the latents of training images, a density fitted to them, its samples decoded to new images (C.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities import move_data_to_device, rank_zero_info
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from jiio_lightning.callbacks.finite import check_batch
from jiio_lightning.callbacks.image_grid import picture
from jiio_lightning.commands.held_out import load
from jiio_lightning.data.dataset import ImageDataset
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.data.sampler import EvalBatches
from jiio_lightning.files import whole_folder
from jiio_lightning.models.density import KINDS, Density
from jiio_lightning.tasks.interface import LatentModel

IMAGES, GRID, DENSITY = "images", "grid.png", "density.pt"
"""What a folder of samples holds."""
SHOWN = 100
"""Samples in the grid, 10 a row."""


@dataclass(frozen=True)
class Samples:
    """What was made."""

    folder: Path  # of ``images/000000.png`` and so on, ``grid.png`` and ``density.pt``
    latents: Tensor  # (N, d) of training images
    density: Density  # fitted to them


def sample(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    ckpt_path: str | None = None,
    n: PositiveInt = 10_000,
    density: str = "gmm",
    out: str | None = None,
    latents: PositiveInt = 10_000,
    batch_size: PositiveInt = 250,
    seed: NonNegativeInt = 0,
) -> Samples:
    """Fit a density to the latents of training images, sample it and write the images that it decodes to.

    Latents are what the run file's own test solver finds (Generation) or the encoder's means (Autoencoding).

    Args:
        ckpt_path: weights; the run's own last ones unless given, or none for a fresh net.
        n: images to make.
        density: gmm (a mixture of 20 normal distributions), vae_gmm (C.2: a VAE of the latents and a mixture of its own) or
            prior (N(0, I), for VAEs).
        out: folder; samples in the run's own unless given.
        latents: training images whose latents the density is fitted to, at most.
        batch_size: images at once.
        seed: of the density and its samples.

    Raises:
        ValueError: if the task has no latents, the folder holds other files or the checkpoint cannot be used.
    """
    if not isinstance(model, LatentModel):
        raise ValueError(f"sample needs a task with latents such as Generation, the run file has {type(model).__name__}")
    if not isinstance(datamodule, ImageDataModule):
        raise ValueError(f"sample needs a data module of images, the run file has {type(datamodule).__name__}")
    if density not in KINDS:
        raise ValueError(f"--density is one of {', '.join(KINDS)}, got {density}")
    if density == "prior" and not model.normal_latents:
        raise ValueError("--density prior samples N(0, I), which only a VAE's latents follow: choose gmm or vae_gmm")
    folder = Path(trainer.default_root_dir) / "samples" if out is None else Path(out)
    check_samples(folder)
    load(trainer, model, datamodule, ckpt_path)
    found = _training_latents(model, datamodule.dataset("train"), latents, batch_size)
    rank_zero_info(f"density: {density}, to be fitted to {len(found)} latents (minutes for thousands of wide ones)")
    fitted = KINDS[density]().fit(found, seed)
    with whole_folder(folder) as part:
        fitted.save(part / DENSITY)
        write_images(model, fitted.sample(n, seed), part, batch_size)
    rank_zero_info(f"samples: {n} images in {folder / IMAGES}, the first ones in {folder / GRID}")
    return Samples(folder, found, fitted)


def check_samples(folder: Path) -> None:
    """Refuse a folder for samples that holds anything but earlier ones, which new ones replace; a ValueError says so."""
    own = re.compile(rf"{re.escape(GRID)}|{re.escape(DENSITY)}|{IMAGES}(/\d+\.png)?")
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    strange = [path for path in found if not own.fullmatch(path.relative_to(folder).as_posix())]
    if strange or folder.is_file():
        raise ValueError(f"{strange[0] if strange else folder} is not a sample: name another folder by --out, or empty it")


def _training_latents(model: LatentModel, dataset: ImageDataset, most: int, batch_size: int) -> Tensor:
    """Latents ``(N, d)`` of the first ``most`` images, or of all if there are fewer, on the host."""
    draws = EvalBatches(range(min(most, len(dataset))), batch_size)
    found: list[Tensor] = []
    for draw in tqdm(draws, desc="latents", unit="batch"):
        batch = dataset[draw]
        check_batch(batch, "training")
        found.append(model.encode(move_data_to_device(batch, model.device)).cpu())
    return torch.cat(found)


def write_images(model: LatentModel, latents: Tensor, folder: Path, batch_size: int) -> None:
    """Decode latents ``(n, d)`` to numbered PNG files, and the first ones to a grid."""
    number, shown = count(), []
    (folder / IMAGES).mkdir()
    for x in tqdm(latents.split(batch_size), desc="samples", unit="batch"):
        images = model.decode(x.to(model.device)).cpu()
        for image in images:
            save_image(((image + 1) / 2).clamp(0, 1), folder / IMAGES / f"{next(number):06d}.png")
        shown += list(images[: SHOWN - len(shown)])
    save_image(picture(torch.stack(shown), 10, enlarge=2), folder / GRID)
