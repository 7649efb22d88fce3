"""How a representation comes along, as pictures; and what ``jiio predict`` makes of it, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torchvision.io import ImageReadMode, read_image

from jiio_lightning.callbacks.media import log_picture
from jiio_lightning.data.signals import SignalData
from jiio_lightning.tasks.representation import Representation


class SignalPictures(Callback):
    """Target, reconstruction, error and spectra at each validation and test, in ``<run folder>/images``.

    Of a video it shows the middle frame, of a solid the middle slice. The loggers that take images get them too. ``jiio predict``
    writes ``predictions/reconstruction`` as PNG, WAV, MP4 or PLY at the resolution of ``data.zoom``.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._show(trainer, pl_module, "val", f"val_{trainer.global_step:07d}.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, pl_module, "test", "test.png")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, SignalData) or not trainer.is_global_zero:  # each process has made all of it
            return
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        rank_zero_info(f"prediction: {data.write(outputs['values'].cpu().reshape(*batch.shape, -1), folder)}")

    def _show(self, trainer: Trainer, task: LightningModule, stage: str, name: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(task, Representation) or not isinstance(data, SignalData) or not trainer.is_global_zero:
            return
        view = data.view()
        made = task.render(view.c.to(task.device, task.dtype)).cpu()
        made = made.sigmoid() if task.occupancy else made.clamp(-1, 1)
        path = Path(trainer.default_root_dir) / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = (part.reshape(*view.shape, -1) for part in (view.values, made))
        comparison(*parts, occupancy=task.occupancy).savefig(path, dpi=100)
        log_picture(trainer, f"images/{stage}", read_image(str(path), ImageReadMode.RGB) / 255, path)


def comparison(target: Tensor, made: Tensor, occupancy: bool = False) -> Figure:
    """Two signals ``(N, C)`` or ``(H, W, C)``, what is between them, and the power of both at each frequency."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(2, 2).flat
    gap = (made - target).abs()
    low = 0 if occupancy else -1
    for place, title, part in zip(axes, ("target", "reconstruction", "absolute error"), (target, made, gap), strict=False):
        _draw(place, part, (0, max(gap.max().item(), 1e-6)) if part is gap else (low, 1))
        place.set_title(title)
    for name, part in (("target", target), ("reconstruction", made)):
        axes[3].loglog(*spectrum(part), label=name, linewidth=1)
    axes[3].set(title="spectrum", xlabel="cycles over the signal", ylabel="power")
    axes[3].legend()
    return figure


def spectrum(signal: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Whole frequencies from 1 on, and the mean power at each, of the mean channel of ``(N, C)`` or ``(H, W, C)``.

    Example:
        >>> import torch
        >>> tone = torch.sin(3 * 2 * torch.pi * torch.arange(32) / 32).unsqueeze(1)
        >>> spectrum(tone)[1].round(3).tolist()[:4]  # all of it at frequency 3
        [0.0, 0.0, 8.0, 0.0]
    """
    grey = signal.mean(-1).numpy()
    power = np.abs(np.fft.fftn(grey)) ** 2 / grey.size
    axes = np.meshgrid(*(n * np.fft.fftfreq(n) for n in grey.shape), indexing="ij")
    ring = np.sqrt(sum(axis**2 for axis in axes)).round().astype(int).ravel()
    last = min(grey.shape) // 2
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring).clip(1)
    return np.arange(1, last + 1), mean[1 : last + 1]


def _draw(place: Axes, part: Tensor, ends: tuple[float, float]) -> None:
    """A curve or an image, whose colours lie between two ends."""
    values = part.numpy()
    if values.ndim == 2:
        place.plot(np.linspace(-1, 1, len(values)), values, linewidth=0.5)
        return
    place.axis("off")
    if values.shape[-1] == 3 and ends == (-1, 1):
        place.imshow((values + 1) / 2)
    else:
        place.imshow(values.mean(-1), cmap="gray", vmin=ends[0], vmax=ends[1])
