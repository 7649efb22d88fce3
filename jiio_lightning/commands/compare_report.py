"""A comparison as a table, a JSON record and two pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from jiio_lightning.commands.comparison import Comparison, Curve, Outcome, Point, first, front
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
MANY = 6
"""Contenders that can be told apart by their names."""
LABEL_ROW = LEGEND_ROW = 0.2
"""Inches."""
PCA = "PCA, same latent"
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
        shown.add_row(PCA, "", f"{comparison.reference:.4g}")
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
    """Feasible cost against seconds: a line a contender with its name beside it, rings on the Pareto front, the ratio where there
    is one of them. Of many contenders the best of each family are a line, and the others are faint."""
    figure, axes = plt.subplots(figsize=(7.5, 4))
    ends: dict[str, tuple[float, float, Any]] = {}

    def draw(name: str, points: list[Point], look: dict[str, Any], end: bool = True) -> None:
        costs = [point.cost / comparison.pixels for point in points]
        axes.plot([p.seconds for p in points], costs, label=name, markevery=-(-len(points) // CROWDED) or None, **look)
        if points and end:
            ends[name] = (points[-1].seconds, costs[-1], look["color"])

    many = len(comparison.curves) > MANY
    for curve, look in _styled(comparison):
        default = curve is comparison.default
        name = curve.name if default else f"{curve.family}: {curve.name}"
        faint = {"color": look["color"], "linewidth": 0.8, "alpha": 0.35}
        draw(name, curve.sound, look if default or not many else faint, end=default or not many)
    for family, (colours, line) in LOOKS.items() if many else ():
        best = front(
            [point for curve in comparison.curves if curve.family == family for point in curve.sound if curve.name != DEFAULT]
        )
        bold = {"color": plt.get_cmap(colours)(0.8), "linestyle": line, "linewidth": 2.0}
        draw(BASELINES.get(family, "other joint solvers"), best, bold)
    best = [point for _, point in comparison.pareto]
    ring: dict[str, Any] = {"s": 100, "facecolors": "none", "edgecolors": "crimson", "linewidths": 1.5, "zorder": 5}
    axes.scatter([p.seconds for p in best], [p.cost / comparison.pixels for p in best], label="Pareto front", **ring)
    unsound = [curve.name for curve in comparison.curves if not curve.sound]
    seconds = f"wall-clock seconds (infeasible: {', '.join(unsound)})" if unsound else "wall-clock seconds"
    axes.set(xlabel=seconds, ylabel=_cost(comparison))
    _logarithmic(axes, all(point.cost > 0 for curve in comparison.curves for point in curve.sound))
    if comparison.reference is not None:
        axes.axhline(comparison.reference, color="gray", linestyle=":", label=PCA)
        ends[PCA] = (axes.get_xlim()[1], comparison.reference, "gray")
    outcomes = [outcome for which, outcome in comparison.outcomes.items() if which in BASELINES]
    if len(outcomes) == 1:
        _mark_ratio(axes, outcomes[0], comparison.pixels)
    _name_ends(axes, ends)
    axes.set_title(
        f"{_samples(comparison)}, z re-solved at each x; ringed: no other point is better", loc="left", fontsize="medium"
    )
    _save(figure, axes, path, legend=False)


def _name_ends(axes: plt.Axes, ends: dict[str, tuple[float, float, Any]]) -> None:
    """The name of each line in a column to the right, at the height of its end where there is room."""
    axes.autoscale(enable=False)
    to_axes = axes.transData + axes.transAxes.inverted()
    height = {name: float(to_axes.transform((x, y))[1]) for name, (x, y, _) in ends.items()}
    names = sorted(height, key=lambda name: height[name])
    room = LABEL_ROW / axes.figure.get_figheight() / 0.8  # a row of text, as a share of the axes
    places = spread([height[name] for name in names], room)
    for name, place in zip(names, places, strict=True):
        x, y, colour = ends[name]
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "relpos": (0, 0.5), "shrinkB": 0}
        words: dict[str, Any] = {"va": "center", "fontsize": "small", "color": colour, "annotation_clip": False}
        axes.annotate(name, (x, y), (1.04, place), textcoords="axes fraction", arrowprops=leader, **words)


def spread(places: list[float], gap: float) -> list[float]:
    """Ascending places, moved as little as keeps each a gap above the one before and the last at most at 1.

    Example:
        >>> spread([0.1, 0.12, 0.98], gap=0.1)
        [0.1, 0.2, 0.98]
        >>> spread([0.95, 0.99], gap=0.1)
        [0.9, 1.0]
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    ceiling = 1.0
    for number in reversed(range(len(moved))):
        moved[number] = min(moved[number], ceiling)
        ceiling = moved[number] - gap
    return moved


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


def _save(figure: plt.Figure, axes: plt.Axes, path: Path, legend: bool = True) -> None:
    """Write a picture, with its legend below it."""
    figure.set_layout_engine("constrained")
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * -(-len(labels) // 2))  # below the axes, which keep their size
        figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
