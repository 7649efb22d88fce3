"""A classifier under attack: accuracies with their intervals as a table, a JSON record, a picture and the attacked set."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jiio_lightning.attacks.named import CLEAN
from jiio_lightning.attacks.threat import ThreatModel
from jiio_lightning.commands.provenance import provenance
from jiio_lightning.metrics.intervals import share_interval
from jiio_lightning.tasks.adversarial import AdversarialTraining, metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

NAMES = ("image", "label", "index", "delta", "logits")


@dataclass(frozen=True)
class Row:
    """One attack.

    Args:
        accuracy: share of samples that are classified correctly at z solved again.
        accuracy_low, accuracy_high: 95 % interval.
        loss: mean cross-entropy there.
        residual: largest relative residual of those solves.
        unconverged: share of samples whose residual is too large for a verdict.
        length: largest norm of a perturbation.
        seconds: wall-clock time of the attack and its verdict, all samples together.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    residual: float
    unconverged: float
    length: float
    seconds: float


@dataclass(frozen=True)
class Robustness:
    """What was measured.

    Args:
        rows: by the attack's name.
        samples: attacked.
        threat: what the attacks were allowed.
        arrays: of the last attack, one row a sample: image, label, index, delta (as images) and logits.
    """

    rows: dict[str, Row]
    samples: int
    threat: ThreatModel
    arrays: dict[str, Tensor]

    def record(self) -> dict[str, Any]:
        """Plain data for a JSON file: metrics by the attack's name."""
        rows = {name: asdict(row) for name, row in self.rows.items()}
        return rows | {"samples": self.samples, "threat": asdict(self.threat), "provenance": provenance()}


def measure(task: AdversarialTraining, batches: Sequence[Any], attacks: Sequence[str]) -> Robustness:
    """Attack the same batches with each attack; clean images come first.

    Args:
        task: with its solver and its weights.
        batches: of labelled images, on the task's device.
        attacks: names, as in ``AdversarialTraining.attack``.

    Raises:
        ValueError: for an attack that nobody knows.
    """
    names = tuple(dict.fromkeys((CLEAN, *attacks)))
    for name in names:
        task.attack(name)  # a name that nobody knows is an error before any work
    rows: dict[str, Row] = {}
    arrays: dict[str, Tensor] = {}
    for name in names:
        rows[name], arrays = _row(task, batches, name)
    return Robustness(rows, len(arrays["label"]), task.threat, arrays)


def _row(task: AdversarialTraining, batches: Sequence[Any], name: str) -> tuple[Row, dict[str, Tensor]]:
    began = time.perf_counter()
    outcomes = [task.attacked(batch, (name,)) for batch in batches]
    seconds = time.perf_counter() - began
    parts = [metrics(outcome) for outcome in outcomes]
    found = {key.removesuffix(f"_{name}"): torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}
    low, high = share_interval(found["accuracy"].numpy())
    delta = torch.cat([outcome[name].delta for outcome in outcomes])
    means = {key: float(found[key].mean()) for key in ("accuracy", "loss", "unconverged")}
    residual, length = float(found["residual"].max()), float(task.threat.length(delta).max())
    row = Row(accuracy_low=low, accuracy_high=high, residual=residual, length=length, seconds=seconds, **means)
    given = {key: torch.cat([getattr(batch, key) for batch in batches]) for key in ("image", "label", "index")}
    logits = torch.cat([outcome[name].verdict.logits for outcome in outcomes])
    arrays = given | {"delta": delta.reshape(given["image"].shape), "logits": logits}
    return row, {key: value.cpu() for key, value in arrays.items()}


def write_robustness(robustness: Robustness, folder: Path, save_set: bool, images: int = 10) -> None:
    """Write ``attack.json`` and ``attack.png`` (and ``attacked.npz``) into a folder, and show the table.

    Args:
        robustness: what was measured.
        folder: made if missing.
        save_set: write the last attack's images, perturbations and logits.
        images: shown in the picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attack.json").write_text(json.dumps(robustness.record(), indent=1, allow_nan=False))
    _picture(robustness, folder / "attack.png", images)
    if save_set:
        np.savez(folder / "attacked.npz", **{name: robustness.arrays[name].numpy() for name in NAMES})
    Console().print(table(robustness))
    written = "attack.json, attack.png" + (", attacked.npz" if save_set else "")
    Console().print(f"{folder}: {written}", soft_wrap=True)


def table(robustness: Robustness) -> Table:
    """Accuracy with its interval, cross-entropy, and how far the verdicts can be trusted, for each attack."""
    threat = robustness.threat
    box = " within the pixel box" if threat.pixel_box else ""
    shown = Table(title=f"{robustness.samples} held-out samples, {threat.norm} eps {threat.eps:g}{box}")
    for column in ("attack", "accuracy %", "95 % interval", "cross-entropy", "residual", "unconverged %", "seconds"):
        shown.add_column(column, justify="left" if column == "attack" else "right")
    for name, row in robustness.rows.items():
        interval = f"{100 * row.accuracy_low:.1f} to {100 * row.accuracy_high:.1f}"
        trust = f"{row.residual:.0e}", f"{100 * row.unconverged:.1f}"
        shown.add_row(name, f"{100 * row.accuracy:.2f}", interval, f"{row.loss:.3f}", *trust, f"{row.seconds:.1f}")
    shown.caption = "Each at z solved again at the attacked image; the residual is the largest of those solves."
    return shown


def _picture(robustness: Robustness, path: Path, images: int) -> None:
    """Clean images, the perturbations of the last attack (grey is 0) and the attacked images with their predictions."""
    arrays, name = robustness.arrays, list(robustness.rows)[-1]
    image, delta = arrays["image"][:images], arrays["delta"][:images]
    scale = float(delta.abs().max()) or 1.0
    rows = [image, 0.5 + 0.5 * delta / scale, (image + delta).clamp(0, 1)]
    titles = [[str(int(label)) for label in arrays["label"]], [], [f"says {int(row.argmax())}" for row in arrays["logits"]]]
    figure, axes = plt.subplots(3, len(image), figsize=(len(image), 3.6), squeeze=False)
    for i, (pictures, words) in enumerate(zip(rows, titles, strict=True)):
        for j, picture in enumerate(pictures):
            pixels = picture.expand(3, -1, -1) if len(picture) == 1 else picture
            axes[i, j].imshow(pixels.permute(1, 2, 0).numpy(), vmin=0, vmax=1)
            axes[i, j].set_axis_off()
            axes[i, j].set_title(words[j] if words else "", fontsize="small")
    figure.suptitle(f"clean, {name} perturbation (full scale {scale:.2g}), attacked", fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
