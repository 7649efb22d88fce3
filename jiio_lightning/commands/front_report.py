"""The frontier as a table, a JSON record and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console
from rich.table import Table

from jiio_lightning.commands.front import DEFAULT, RIVALS, Entry, Family, Front, Measured, violation
from jiio_lightning.commands.provenance import provenance
from jiio_lightning.commands.report import cost_label, logarithmic, save, write_json

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

LOOKS = {"paper": ("Oranges", ":"), "nested": ("Blues", "--"), "started": ("Purples", "-."), "joint": ("Greens", "-")}
"""Colours and line of each family."""
MARKERS = "s^Dv<>pX"
"""Of its members, in turn."""
COLUMNS: dict[str, Callable[[Entry, Measured], str]] = {
    "steps": lambda entry, at: str(at.steps),
    "seconds": lambda entry, at: f"{at.seconds:.3g}",
    "from": lambda entry, at: f"{at.seconds_low:.3g}",
    "to": lambda entry, at: f"{at.seconds_high:.3g}",
    "f": lambda entry, at: str(at.evaluations),
    "back": lambda entry, at: str(at.backwards),
    "MiB": lambda entry, at: f"{entry.peak_mib:.0f}",
    "|z|": lambda entry, at: f"{at.residuals['z']:.0e}",
    "KKT": lambda entry, at: f"{at.kkt:.1e}",
}
"""Of the table, beside the contender and the cost."""


def write_front(front: Front, folder: Path, pixels: float) -> None:
    """Write ``front.json`` and ``front.png`` into a folder, and show the table.

    Args:
        front: what was measured.
        folder: made if missing.
        pixels: of an image, where costs are sums over them: costs are shown per pixel. Else 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "front.json", front.record() | {"pixels": pixels, "provenance": provenance()})
    plot(front, folder / "front.png", pixels)
    shown = table(front, pixels)
    console = Console(width=max(Console().width, Console(width=1000).measure(shown).maximum))  # a file has 80 columns
    console.print(shown)
    console.print(f"{folder}: front.png, front.json", soft_wrap=True)


def table(front: Front, pixels: float) -> Table:
    """Each solve with its cost, its time and its residuals; a star is on the Pareto front."""
    best = [point for _, point in front.pareto]
    shown = Table(title=f"The frontier, {front.samples} held-out samples, medians of {front.repeats} interleaved rounds")
    shown.add_column("contender", no_wrap=True)
    for column in ("cost", *COLUMNS):
        shown.add_column(column, justify="right", no_wrap=True)
    for entry in front.entries:
        for point in entry.points:
            star = " *" if any(point is other for other in best) else ""
            cost = f"{point.cost / pixels:.4g}" if point.sound else "infeasible"
            shown.add_row(f"{entry.name}{star}", cost, *(value(entry, point) for value in COLUMNS.values()))
        shown.add_section()
    shown.caption = "\n".join([*(_outcome(front, family, pixels) for family in RIVALS), _memory(front), _legend(pixels)])
    return shown


def _outcome(front: Front, family: Family, pixels: float) -> str:
    """The ratio of the times to the cost that both reach."""
    found = front.against(family)
    if found is None:
        return f"{RIVALS[family]}: no solve ended at a feasible cost."
    own, other = found.reached["joint"], found.reached["nested"]
    return (
        f"x {found.speedup:.1f} against {RIVALS[family]} at cost {found.target / pixels:.4g}: default {own.seconds:.3g} s in "
        f"{own.steps} steps, {found.tuned.setting} {other.seconds:.3g} s in {other.steps}; |z| {violation(found):.0e}."
    )


def _memory(front: Front) -> str:
    peaks = front.memory
    return "" if peaks is None else f"Peak memory of the default over the paper's Nested: {peaks:.2f}."


def _legend(pixels: float) -> str:
    return (
        f"{cost_label(pixels).capitalize()}: z solved again at x. * on the Pareto front of cost and seconds.\n"
        "f, back: evaluations of f and passes back through it. |z|: relative residual of z as the solver returns it; "
        "KKT: norm of Eq. 14; medians."
    )


def plot(front: Front, path: Path, pixels: float) -> None:
    """Feasible cost against wall-clock seconds, a line a contender, rings around the points of the Pareto front."""
    figure, axes = plt.subplots(figsize=(8, 5))
    for entry, look in _styled(front):
        points = entry.sound
        axes.plot([p.seconds for p in points], [p.cost / pixels for p in points], label=_named(entry), **look)
    best = [point for _, point in front.pareto]
    ring: dict[str, Any] = {"s": 130, "facecolors": "none", "edgecolors": "crimson", "linewidths": 1.5, "zorder": 5}
    axes.scatter([p.seconds for p in best], [p.cost / pixels for p in best], label="Pareto front", **ring)
    positive = all(point.cost > 0 for entry in front.entries for point in entry.sound)
    axes.set(xlabel="wall-clock seconds", ylabel=cost_label(pixels))
    logarithmic(axes, positive)
    axes.set_title(f"z solved again at each x, {front.samples} held-out samples, medians of {front.repeats} rounds")
    save(figure, axes, path)


def _styled(front: Front) -> list[tuple[Entry, dict[str, Any]]]:
    """Each contender with the colour, line and marker of its family; the default is bold and black."""
    looks: list[tuple[Entry, dict[str, Any]]] = []
    for family, (colours, line) in LOOKS.items():
        members = [entry for entry in front.entries if entry.family == family and entry.name != DEFAULT]
        for place, entry in enumerate(members, 1):
            colour = plt.get_cmap(colours)(0.35 + 0.6 * place / len(members))
            marker = MARKERS[place % len(MARKERS)]
            looks.append((entry, {"color": colour, "linestyle": line, "marker": marker, "markersize": 5}))
    bold = {"color": "black", "linestyle": "-", "marker": "o", "linewidth": 2.5, "zorder": 4}
    return [*looks, (front.default, bold)]


def _named(entry: Entry) -> str:
    family = entry.name if entry.name == DEFAULT else f"{entry.family}: {entry.name}"
    return family if entry.sound else f"{family} (infeasible)"
