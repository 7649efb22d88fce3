"""A comparison as a table, a JSON record and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from jiio_lightning.comparison import Comparison
from jiio_lightning.provenance import provenance

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


def write_report(comparison: Comparison, folder: Path, pixels: int, reference: float | None) -> None:
    """Write ``comparison.json``, ``cost_over_time.png`` and ``residuals.png`` into a folder, and print the table.

    Args:
        comparison: what was measured; its costs are sums over the pixels.
        folder: made if missing.
        pixels: of an image: costs are shown per pixel.
        reference: a yardstick per pixel (PCA with as many numbers), if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = comparison.record() | {"pixels": pixels, "reference": reference, "provenance": provenance()}
    (folder / "comparison.json").write_text(json.dumps(record, indent=1))
    _plot_cost(comparison, folder / "cost_over_time.png", pixels, reference)
    _plot_residuals(comparison, folder / "residuals.png")
    Console().print(table(comparison, pixels, reference))
    Console().print(f"pictures and record: {folder}/cost_over_time.png, residuals.png, comparison.json")


def table(comparison: Comparison, pixels: int, reference: float | None) -> Table:
    """Feasible cost and time of each joint budget, of the tuned nested baseline, and the ratio at equal cost."""
    shown = Table(title=f"Joint against Nested, {comparison.samples} samples, feasible cost per pixel")
    for column in ("method", "steps", "feasible cost", "seconds", "nested needs", "ratio"):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for point in comparison.joint.points:
        match = comparison.tuned.reaches(point.cost)
        needed = "never" if match is None else f"{match.seconds:.2f}"
        ratio = "-" if match is None else f"x {match.seconds / point.seconds:.1f}"
        shown.add_row("joint", str(point.steps), f"{point.cost / pixels:.4f}", f"{point.seconds:.2f}", needed, ratio)
    for curve in comparison.nested:
        last = curve.points[-1]
        name = f"nested {curve.setting}" + (" (tuned)" if curve is comparison.tuned else "")
        shown.add_row(name, str(last.steps), f"{curve.best / pixels:.4f}", f"{last.seconds:.2f}", "", "")
    if reference is not None:
        shown.add_row("PCA, same latent", "", f"{reference:.4f}", "", "", "")
    shown.caption = f"x {comparison.speedup:.1f} at the lowest cost that both reach, {comparison.target / pixels:.4f}"
    return shown


def _plot_cost(comparison: Comparison, path: Path, pixels: int, reference: float | None) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for curve in [comparison.joint, *comparison.nested]:
        seconds, cost = [p.seconds for p in curve.points], [p.cost / pixels for p in curve.points]
        tuned = curve is comparison.tuned
        style = {"marker": "o"} if curve is comparison.joint else {"alpha": 1.0 if tuned else 0.35}
        axes.plot(seconds, cost, label=f"{curve.method} {curve.setting}" + (", tuned" if tuned else ""), **style)
    if reference is not None:
        axes.axhline(reference, color="gray", linestyle=":", label="PCA, same latent")
    axes.set(xscale="log", yscale="log", xlabel="wall-clock seconds", ylabel="feasible cost per pixel")
    axes.set_title(f"z solved again at each x, {comparison.samples} held-out samples")
    _save(figure, axes, path)


def _plot_residuals(comparison: Comparison, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, values in comparison.residuals.items():
        axes.plot(range(len(values)), values, label=name)
    axes.set(yscale="log", xlabel="joint step", ylabel="relative residual, median of the batch")
    _save(figure, axes, path)


def _save(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
