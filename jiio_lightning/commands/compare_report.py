"""A comparison as a table, a JSON record and two pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from jiio_lightning.commands.comparison import Comparison, Curve, Outcome, Point, first
from jiio_lightning.commands.contenders import BASELINES, DEFAULT
from jiio_lightning.commands.output import show, write_record
from jiio_lightning.files import whole_folder

matplotlib.use("Agg")  # pictures are files: no display is needed
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: E402

SHARES = ("accuracy",)
"""Metrics shown next to the cost; a generator's error is its cost."""
A_POINT = 0.01 + 1e-6
"""A percentage point, up to the rounding of means in float32."""
COLUMNS: dict[str, Callable[[Curve, Point], str]] = {
    "seconds": lambda curve, at: f"{at.seconds:.3g}",
    "spread": lambda curve, at: f"{(at.seconds_slowest - at.seconds_fastest) / at.seconds:.0%}",
    "f": lambda curve, at: str(at.evaluations),
    "back": lambda curve, at: str(at.backwards),
    "MiB": lambda curve, at: f"{curve.peak_mib:.0f}",
    "|z|": lambda curve, at: f"{at.residuals['z']:.0e}",
    "KKT": lambda curve, at: f"{at.kkt:.1e}",
}
LOOKS = {"paper": ("Oranges", ":"), "nested": ("Blues", "--"), "learned": ("Purples", "-."), "joint": ("Greens", "-")}
"""Colours and line of each family."""
MARKERS = "s^Dv<>pX"
"""Of its members, in turn."""
CROWDED = 12
"""Rows of a contender and markers on its line, at most."""
LEGEND_ROW = 0.2
"""Inches."""
RESIDUAL_LABELS = {"z": "z: |f - z| / |f|", "mu": "mu: |dL/dz| / |J'mu + dl/dz|", "x": "x: |dL/dx| / largest so far"}


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write ``compare.json``, ``cost_over_time.png`` and ``residuals.png`` into a folder, and show the table."""
    with whole_folder(folder, keep=True) as part:
        write_record(part / "compare.json", comparison.record())
        plot_cost(comparison, part / "cost_over_time.png")
        plot_residuals(comparison, part / "residuals.png")
    show(table(comparison), f"{folder}: cost_over_time.png, residuals.png, compare.json")


def table(comparison: Comparison) -> Table:
    """Each solve; of a contender with many of them the last one, and where it is first at a target."""
    # by id: a point holds dicts and has no hash
    best = {id(point) for _, point in comparison.pareto}
    reached = {id(outcome.reached["baseline"]) for outcome in comparison.outcomes.values()}
    shares = [name for name in SHARES if name in comparison.default.sound[0].metrics]
    baselines = next(filter(None, map(comparison.baselines, BASELINES)), [])
    shown = Table(title=f"{_samples(comparison)}, medians of {comparison.repeats} interleaved rounds")
    shown.add_column("contender", no_wrap=True)
    for column in ("steps", "cost", *shares, *COLUMNS, *(["baseline s", "times faster"] if baselines else [])):
        shown.add_column(column, justify="right", no_wrap=True)
    for curve in comparison.curves:
        for budget, point in curve.points.items():
            if len(curve.points) <= CROWDED or budget == max(curve.points) or id(point) in reached:
                name = f"{curve.name} *" if id(point) in best else curve.name
                cost = f"{point.cost / comparison.pixels:.4g}" if point.sound else "infeasible"
                given = [f"{point.metrics.get(share, math.nan):.4f}" for share in shares]
                measured = [value(curve, point) for value in COLUMNS.values()]
                shown.add_row(name, str(point.steps), cost, *given, *measured, *_needed(curve, point, baselines))
        shown.add_section()
    if comparison.reference is not None:
        shown.add_row("PCA, same latent", "", f"{comparison.reference:.4g}")
    shown.caption = "\n".join([*_told(comparison, shares), *_legend(comparison)])
    return shown


def _samples(comparison: Comparison) -> str:
    return f"{comparison.samples * comparison.batches} held-out samples"


def _needed(curve: Curve, point: Point, baselines: list[Curve]) -> list[str]:
    """The time that the fastest baseline needs for the cost of a joint point, and the ratio."""
    if curve.family != "joint" or not point.sound or not baselines:
        return []
    reached = first(baselines, point.cost)
    return ["never", ""] if reached is None else [f"{reached[0].seconds:.3g}", f"x {reached[0].seconds / point.seconds:.1f}"]


def _told(comparison: Comparison, shares: list[str]) -> Iterator[str]:
    """For each family the ratio of the times to the cost that both reach, and whether the shares are as good as equal there."""
    for family, called in BASELINES.items():
        outcome = comparison.outcomes.get(family)
        if outcome is not None:
            ours, theirs = outcome.reached["default"], outcome.reached["baseline"]
            yield (
                f"x {outcome.speedup:.1f} against {called} at cost {outcome.target / comparison.pixels:.4g}: default "
                f"{ours.seconds:.3g} s in {ours.steps} steps, {outcome.tuned} {theirs.seconds:.3g} s in {theirs.steps}; "
                f"|z| {ours.residuals['z']:.0e}."
            )
            for name in shares:
                within = "within" if abs(outcome.gap[name]) <= A_POINT else "not within"
                yield f"There {name} is {ours.metrics[name]:.4f} and {theirs.metrics[name]:.4f}: {within} a point."
        elif comparison.baselines(family):
            yield f"{called}: no solve ended at a feasible cost."
    if comparison.memory is not None:
        yield f"Peak memory of the default over the paper's Nested: {comparison.memory:.2f}."


def _legend(comparison: Comparison) -> Iterator[str]:
    residual = max(point.resolve_residual for curve in comparison.curves for point in curve.sound)
    yield f"{_cost(comparison).capitalize()}: at z re-solved at x, to a residual of at most {residual:.0e}. *: on the front."
    yield "spread: of the rounds. f, back: evaluations of f and passes back through it. |z|: relative residual of the returned z."
    yield "KKT: norm of Eq. 14. Medians over the samples. baseline s: seconds of the fastest baseline to that cost."


def _cost(comparison: Comparison) -> str:
    return "feasible cost" if comparison.pixels == 1 else "feasible cost per pixel"


def plot_cost(comparison: Comparison, path: Path) -> None:
    """Feasible cost against seconds: a line a contender, rings on the Pareto front, the ratio where there is one of them."""
    figure, axes = plt.subplots(figsize=(8, 5))
    for curve, look in _styled(comparison):
        points = curve.sound
        name = curve.name if curve is comparison.default else f"{curve.family}: {curve.name}"
        look |= {"label": name if points else f"{name} (infeasible)", "markevery": -(-len(points) // CROWDED) or None}
        axes.plot([p.seconds for p in points], [p.cost / comparison.pixels for p in points], **look)
    best = [point for _, point in comparison.pareto]
    ring: dict[str, Any] = {"s": 130, "facecolors": "none", "edgecolors": "crimson", "linewidths": 1.5, "zorder": 5}
    axes.scatter([p.seconds for p in best], [p.cost / comparison.pixels for p in best], label="Pareto front", **ring)
    if comparison.reference is not None:
        axes.axhline(comparison.reference, color="gray", linestyle=":", label="PCA, same latent")
    axes.set(xlabel="wall-clock seconds", ylabel=_cost(comparison))
    _logarithmic(axes, all(point.cost > 0 for curve in comparison.curves for point in curve.sound))
    outcomes = [outcome for which, outcome in comparison.outcomes.items() if which in BASELINES]
    if len(outcomes) == 1:
        _mark_ratio(axes, outcomes[0], comparison.pixels)
    axes.set_title(f"{_samples(comparison)}, z re-solved at each x")
    _save(figure, axes, path)


def _styled(comparison: Comparison) -> list[tuple[Curve, dict[str, Any]]]:
    """Each contender with the colour, line and marker of its family; the default is bold and black."""
    looks: list[tuple[Curve, dict[str, Any]]] = []
    for family, (colours, line) in LOOKS.items():
        members = [curve for curve in comparison.curves if curve.family == family and curve.name != DEFAULT]
        for place, curve in enumerate(members, 1):
            colour = plt.get_cmap(colours)(0.35 + 0.6 * place / len(members))
            marker = MARKERS[place % len(MARKERS)]
            looks.append((curve, {"color": colour, "linestyle": line, "marker": marker, "markersize": 5}))
    bold = {"color": "black", "linestyle": "-", "marker": "o", "linewidth": 2.5, "zorder": 4}
    return [*looks, (comparison.default, bold)]


def _logarithmic(axes: plt.Axes, positive: bool) -> None:
    """A logarithmic axis of time, and of cost where all are positive, with plain numbers at its ticks."""
    axes.set(xscale="log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # labels of all nine would overlap
    if positive:
        axes.set(yscale="log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for axis in (axes.xaxis, axes.yaxis) if positive else (axes.xaxis,):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark_ratio(axes: plt.Axes, outcome: Outcome, pixels: float) -> None:
    """An arrow from the default's time to the baseline's, at the target."""
    start, end = (outcome.reached[side].seconds for side in ("default", "baseline"))
    cost = outcome.target / pixels
    axes.annotate("", (end, cost), (start, cost), arrowprops={"arrowstyle": "<->", "color": "black", "shrinkA": 0, "shrinkB": 0})
    middle = (math.sqrt(start * end), cost)
    axes.annotate(f"x {outcome.speedup:.1f}", middle, (0, 4), textcoords="offset points", ha="center")


def plot_residuals(comparison: Comparison, path: Path) -> None:
    """Residuals of z, mu and x along the default's largest solve."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, values in comparison.residuals.items():
        shown = [value if value > 0 else math.nan for value in values]  # x has no gradient while mu = 0
        axes.plot(range(1, len(values) + 1), shown, label=RESIDUAL_LABELS[name])
    axes.set(yscale="log", xlabel="step of the default", ylabel="relative residual, median of the batch")
    _save(figure, axes, path)


def _save(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    """Write a picture with its legend below it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.set_layout_engine("constrained")
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // 2))  # below the axes, which keep their size
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
