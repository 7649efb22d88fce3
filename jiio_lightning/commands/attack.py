"""``jiio attack``: accuracies of a classifier under attack, with their intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import LightningDataModule, Trainer
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from jiio_lightning.attacks.named import CLEAN
from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.commands.held_out import first, load
from jiio_lightning.commands.output import show, write_record
from jiio_lightning.files import whole_folder
from jiio_lightning.metrics.intervals import share_interval
from jiio_lightning.tasks.adversarial import AdversarialTraining, metrics
from jiio_lightning.tasks.base import JIIOTask

matplotlib.use("Agg")  # pictures are files: no display is needed
from matplotlib import pyplot as plt  # noqa: E402

SHOWN = 10
"""Images in the picture."""
ATTACKED = "attacked.npz"
RECORDED = ("samples", "threat")
"""What the record holds beside the attacks."""


@dataclass(frozen=True)
class Robustness:
    """A classifier under one attack, judged at the re-solved z."""

    accuracy: float  # share of samples that are classified correctly
    accuracy_low: float  # 95 % interval
    accuracy_high: float
    loss: float  # mean cross-entropy
    residual: float  # largest relative residual of the re-solved z
    unconverged: float  # share of samples whose residual is too large for a verdict
    length: float  # largest norm of a perturbation
    seconds: float  # wall-clock time of the attack and its verdict, all samples together


def attack(
    trainer: Trainer,
    model: JIIOTask,
    datamodule: LightningDataModule,
    ckpt_path: str | None = None,
    attack: str = "pgd,jiio",
    eps: float | None = None,
    n: PositiveInt | None = None,
    save_set: bool = False,
) -> dict[str, Robustness]:
    """Attack a trained classifier on held-out images.

    Args:
        ckpt_path: weights; the run's own last ones unless given, or none for a fresh net.
        attack: one or several, separated by commas: pgd, pgd_strong, jiio (the run file's solver.test), autoattack,
            intermediate, or one of the run file's own_attacks.
        eps: radius of the ball; the run file's unless given.
        n: how many test images; all unless given.
        save_set: write the attacked images of the last attack as arrays too.

    Returns:
        What was measured, by the attack's name; clean images are the first.

    Raises:
        ValueError: if the task is another one, the attack is not known, there are too few images or the checkpoint cannot
            be used.
    """
    if not isinstance(model, AdversarialTraining):
        raise ValueError(f"attack needs the task AdversarialTraining, the run file has {type(model).__name__}")
    load(trainer, model, datamodule, ckpt_path)
    if eps is not None:
        model.threat = replace(model.threat, eps=eps)
    names = tuple(dict.fromkeys((CLEAN, *(name.strip() for name in attack.split(",")))))
    for name in names:
        model.attack(name)  # an unknown name is an error before any work
        if name in RECORDED:
            raise ValueError(f"own_attacks: attack.json has a meaning of its own for {name}: give yours another name")
    batches = first(datamodule, n, model)
    samples = sum(len(batch.index) for batch in batches)
    if n is not None and samples < n:
        raise ValueError(f"the test split has {samples} samples, --n wants {n}")
    rows: dict[str, Robustness] = {}
    for name in names:
        rows[name], arrays = measure(model, batches, name)
    folder = Path(trainer.default_root_dir) / "attack"
    record = {name: asdict(row) for name, row in rows.items()}
    with whole_folder(folder, keep=True) as part:
        write_record(part / "attack.json", record | {"samples": samples, "threat": asdict(model.threat)})
        _picture(arrays, name, part / "attack.png")
        if save_set:
            np.savez(part / ATTACKED, **{key: array.numpy() for key, array in arrays.items()})
    if not save_set:  # it is of an earlier attack
        (folder / ATTACKED).unlink(missing_ok=True)
    show(_table(rows, samples, model.threat), f"{folder}: attack.json, attack.png{f', {ATTACKED}' if save_set else ''}")
    return rows


def measure(task: AdversarialTraining, batches: Sequence[Any], name: str) -> tuple[Robustness, dict[str, Tensor]]:
    """One attack on all batches; the arrays have a row a sample: image, label, index, delta (as images) and logits."""
    began = time.perf_counter()
    outcomes = [task.attacked(batch, (name,)) for batch in tqdm(batches, desc=name, unit="batch")]
    seconds = time.perf_counter() - began
    parts = [metrics(outcome) for outcome in outcomes]
    # rows of all samples, not means of batches: the last batch may be smaller, and the interval is of samples
    found = {key.removesuffix(f"_{name}"): torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}
    low, high = share_interval(found["accuracy"].numpy())
    means = {key: float(found[key].mean()) for key in ("accuracy", "loss", "unconverged")}
    delta = torch.cat([outcome[name].delta for outcome in outcomes])
    residual, length = float(found["residual"].max()), float(task.threat.length(delta).max())
    row = Robustness(accuracy_low=low, accuracy_high=high, residual=residual, length=length, seconds=seconds, **means)
    arrays = {key: torch.cat([getattr(batch, key) for batch in batches]) for key in ("image", "label", "index")}
    arrays["delta"] = delta.reshape(arrays["image"].shape)
    arrays["logits"] = torch.cat([outcome[name].verdict.logits for outcome in outcomes])
    return row, {key: array.cpu() for key, array in arrays.items()}


def _table(rows: dict[str, Robustness], samples: int, threat: ThreatModel) -> Table:
    """Accuracy with its interval, cross-entropy, and how far the verdicts can be trusted, for each attack."""
    box = " within the pixel box" if threat.pixel_box else ""
    shown = Table(title=f"{samples} held-out samples, {threat.norm} eps {threat.eps:g}{box}")
    for column in ("attack", "accuracy %", "95 % interval", "cross-entropy", "residual", "unconverged %", "seconds"):
        shown.add_column(column, justify="left" if column == "attack" else "right")
    for name, row in rows.items():
        interval = f"{100 * row.accuracy_low:.1f} to {100 * row.accuracy_high:.1f}"
        trust = f"{row.residual:.0e}", f"{100 * row.unconverged:.1f}"
        shown.add_row(name, f"{100 * row.accuracy:.2f}", interval, f"{row.loss:.3f}", *trust, f"{row.seconds:.1f}")
    shown.caption = "Each at z re-solved at the attacked image; the residual is the largest of those solves."
    return shown


def _picture(arrays: dict[str, Tensor], name: str, path: Path) -> None:
    """Clean images, the perturbations of an attack (grey is 0) and the attacked images with their predictions."""
    image, delta = arrays["image"][:SHOWN], arrays["delta"][:SHOWN]
    scale = float(delta.abs().max()) or 1.0  # clean images have no perturbation
    rows = {
        "clean": (image, [str(int(label)) for label in arrays["label"]]),
        f"{name} perturbation": (0.5 + 0.5 * delta / scale, [""] * len(image)),
        "attacked": ((image + delta).clamp(0, 1), [f"says {int(row.argmax())}" for row in arrays["logits"]]),
    }
    figure, axes = plt.subplots(len(rows), len(image), figsize=(len(image), 3.6), squeeze=False)
    for line, (pictures, words) in zip(axes, rows.values(), strict=True):
        for at, picture, word in zip(line, pictures, words[: len(image)], strict=True):
            # three equal channels: a single one would be drawn in a colour map
            at.imshow(picture.expand(3, -1, -1).permute(1, 2, 0).numpy(), vmin=0, vmax=1)
            at.set_axis_off()
            at.set_title(word, fontsize="small")
    figure.suptitle(f"{', '.join(rows)} (full scale of the perturbation: {scale:.2g})", fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
