"""New images of a trained generator: the latents of training images, a density fitted to them, its samples decoded (C.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor
from torchvision.utils import save_image
from tqdm import tqdm

from jiio_lightning.callbacks.image_grid import picture
from jiio_lightning.data import ImageBatch
from jiio_lightning.data.dataset import ImageDataset
from jiio_lightning.data.sampler import EvalBatches
from jiio_lightning.models.density import KINDS, Density
from jiio_lightning.tasks.interface import LatentModel

IMAGES, GRID, DENSITY = "images", "grid.png", "density.pt"
"""What a folder of samples holds."""

SHOWN = 100
"""Samples in the grid, 10 a row."""


class Generative(Protocol):
    """A task with latents."""

    device: torch.device

    def encode(self, batch: ImageBatch) -> Tensor:
        """Latents ``(B, d)`` of the images."""

    def decode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] of latents ``(B, d)``."""


@dataclass(frozen=True)
class Samples:
    """What was made.

    Args:
        folder: where the images are, ``images/000000.png`` and so on, ``grid.png`` and ``density.pt``.
        count: images.
        latents: training latents that the density was fitted to ``(N, d)``.
        density: fitted to them.
    """

    folder: Path
    count: int
    latents: Tensor
    density: Density


def make_density(kind: str, task: Generative) -> Density:
    """An unfitted density by its name.

    Raises:
        ValueError: for another name, or the prior of a task that has none.
    """
    if kind not in KINDS:
        raise ValueError(f"--density is one of {', '.join(KINDS)}, got {kind}")
    if kind == "prior" and not (isinstance(task, LatentModel) and task.normal_latents):
        raise ValueError("--density prior samples N(0, I), which only a VAE's latents follow: choose gmm or vae_gmm")
    return KINDS[kind]()


def claim(folder: Path) -> Path:
    """A folder for samples: new, empty, or holding earlier samples and nothing else; these are removed.

    Raises:
        ValueError: if it holds other files.
    """
    own = re.compile(rf"{re.escape(GRID)}|{re.escape(DENSITY)}|{IMAGES}(/\d+\.png)?")
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    strange = [path for path in found if not own.fullmatch(path.relative_to(folder).as_posix())]
    if strange or folder.is_file():
        raise ValueError(f"{strange[0] if strange else folder} is not a sample: name another folder by --out, or empty it")
    for path in found:
        if path.is_file():
            path.unlink()
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    return folder


def training_latents(task: Generative, dataset: ImageDataset, count: int, batch_size: int) -> Tensor:
    """Latents ``(N, d)`` of the first ``count`` images, or of all if there are fewer, on the host."""
    batches = EvalBatches(range(min(count, len(dataset))), batch_size)
    found = [
        task.encode(move_data_to_device(dataset[draw], task.device)).cpu() for draw in tqdm(batches, desc="latents", unit="batch")
    ]
    return torch.cat(found)


def write_samples(task: Generative, density: Density, folder: Path, n: int, batch_size: int, seed: int) -> None:
    """Decode ``n`` latents of a density to PNG files and the grid of the first ones."""
    first: list[Tensor] = []
    number = 0
    for x in tqdm(density.sample(n, seed).split(batch_size), desc="samples", unit="batch"):
        images = task.decode(x.to(task.device)).cpu()
        for image in images:
            save_image(((image + 1) / 2).clamp(0, 1), folder / IMAGES / f"{number:06d}.png")
            number += 1
        first += [images] if sum(map(len, first)) < SHOWN else []
    save_image(picture(torch.cat(first)[:SHOWN], 10, enlarge=2), folder / GRID)
