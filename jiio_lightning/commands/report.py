"""A comparison as a table, a JSON record and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console
from rich.table import Table

from jiio_lightning.commands.comparison import Comparison
from jiio_lightning.commands.provenance import provenance

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: E402

SHOWN = ("accuracy",)
"""Shares that stand beside the cost; a generator's error is its cost."""
POINT = 0.01 + 1e-6
"""A percentage point, up to the rounding of means in float32."""
RESIDUAL_LABELS = {"z": "z: |f - z| / |f|", "mu": "mu: |dL/dz| / |J'mu + dl/dz|", "x": "x: |dL/dx| / largest so far"}


def write_report(comparison: Comparison, folder: Path, pixels: float, reference: float | None) -> None:
    """Write ``comparison.json``, ``cost_over_time.png`` and ``residuals.png`` into a folder, and show the table.

    Args:
        comparison: what was measured.
        folder: made if missing.
        pixels: of an image, where costs are sums over them: costs are shown per pixel. Else 1.
        reference: a yardstick per pixel (PCA with as many numbers), if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = comparison.record() | {"pixels": pixels, "reference": reference, "provenance": provenance()}
    write_json(folder / "comparison.json", record)
    _plot_cost(comparison, folder / "cost_over_time.png", pixels, reference)
    _plot_residuals(comparison, folder / "residuals.png")
    Console().print(table(comparison, pixels, reference))
    Console().print(f"{folder}: cost_over_time.png, residuals.png, comparison.json", soft_wrap=True)


def table(comparison: Comparison, pixels: float, reference: float | None) -> Table:
    """Feasible cost and time of each joint budget, the time that the nested baseline needs for the same cost, and the ratio."""
    shown = Table(title=f"Joint against Nested, {comparison.samples * comparison.batches} held-out samples, {cost_label(pixels)}")
    names = [name for name in SHOWN if name in comparison.gap]
    for column in ("method", "steps", "cost", "seconds", "nested s to that cost", "ratio", *names):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for joint, point in ((curve, point) for curve in [comparison.joint, *comparison.variants] for point in curve.points):
        needed = comparison.nested_seconds(point.cost)
        match = (f"{needed:.2f}", f"x {needed / point.seconds:.1f}") if math.isfinite(needed) else ("never", "")
        row = (f"joint {joint.setting}", str(point.steps), f"{point.cost / pixels:.4f}", f"{point.seconds:.3f}", *match)
        shown.add_row(*row, *(f"{point.metrics[name]:.4f}" for name in names))
    for curve in comparison.nested:
        end, name = curve.points[-1], f"nested {curve.setting}"
        row = (name, str(end.steps), f"{end.cost / pixels:.4f}", f"{end.seconds:.3f}", "", "")
        shown.add_row(*row, *(f"{end.metrics[name]:.4f}" for name in names))
    if reference is not None:
        shown.add_row("PCA, same latent", "", f"{reference:.4f}", "", "", "")
    shown.caption = (
        f"x {comparison.speedup:.1f} at the lowest cost that both reach, {comparison.target / pixels:.4f}, where nested "
        f"{comparison.tuned.setting} is the fastest of {len(comparison.nested)} step sizes.\n"
        + "".join(f"{_there(comparison, name)}\n" for name in names)
        + f"Feasible: z solved again at x, to a residual of at most {comparison.resolve_residual:.0e}."
    )
    return shown


def _there(comparison: Comparison, name: str) -> str:
    """A share of both methods at the target, and whether they are as good as equal there."""
    reached = comparison.reached
    joint, nested = (f"{reached[method].metrics[name]:.4f}" for method in ("joint", "nested"))
    within = "within" if abs(comparison.gap[name]) <= POINT else "not within"
    return (
        f"There {name} is {joint} by joint in {reached['joint'].steps} steps, {nested} by nested in {reached['nested'].steps}: "
        f"{within} a point."
    )


def cost_label(pixels: float) -> str:
    """Of an axis or a column."""
    return "feasible cost" if pixels == 1 else "feasible cost per pixel"


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record; a number that JSON does not have is null."""
    path.write_text(json.dumps(_plain(record), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plot_cost(comparison: Comparison, path: Path, pixels: float, reference: float | None) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for curve in [comparison.joint, *comparison.variants, *comparison.nested]:
        seconds, cost = [p.seconds for p in curve.points], [p.cost / pixels for p in curve.points]
        tuned = curve is comparison.tuned
        style = {"marker": "o", "zorder": 3} if curve.method == "joint" else {"alpha": 1.0 if tuned else 0.35}
        axes.plot(seconds, cost, label=f"{curve.method} {curve.setting}" + (", first at the target" if tuned else ""), **style)
    if reference is not None:
        axes.axhline(reference, color="gray", linestyle=":", label="PCA, same latent")
    axes.set(xlabel="wall-clock seconds", ylabel=cost_label(pixels))
    logarithmic(axes, comparison.positive)
    _mark_ratio(comparison, axes, pixels)
    axes.set_title(f"z solved again at each x, {comparison.samples * comparison.batches} held-out samples")
    save(figure, axes, path)


def logarithmic(axes: plt.Axes, positive: bool) -> None:
    """A logarithmic axis of time, and of cost where all are positive, with plain numbers at its ticks."""
    axes.set(xscale="log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # labels of all nine would overlap
    scaled = [axes.xaxis]
    if positive:
        axes.set(yscale="log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        scaled.append(axes.yaxis)
    for axis in scaled:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark_ratio(comparison: Comparison, axes: plt.Axes, pixels: float) -> None:
    """An arrow from the joint method's time to the nested one's, at the lowest cost that both reach."""
    end = comparison.nested_seconds(comparison.target)
    start, cost = end / comparison.speedup, comparison.target / pixels
    axes.annotate("", (end, cost), (start, cost), arrowprops={"arrowstyle": "<->", "color": "black", "shrinkA": 0, "shrinkB": 0})
    middle = (math.sqrt(start * end), cost)
    axes.annotate(f"x {comparison.speedup:.1f}", middle, (0, 4), textcoords="offset points", ha="center")


def _plot_residuals(comparison: Comparison, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, values in comparison.residuals.items():
        shown = [value if value > 0 else math.nan for value in values]  # x has no gradient while mu = 0
        axes.plot(range(1, len(values) + 1), shown, label=RESIDUAL_LABELS.get(name, name))
    axes.set(yscale="log", xlabel="joint step", ylabel="relative residual, median of the batch")
    save(figure, axes, path)


LEGEND_ROW = 0.2
"""Inches."""


def save(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    """Write a picture with its legend below it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.set_layout_engine("constrained")
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // 2))  # below the axes, which keep their size
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
