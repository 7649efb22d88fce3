"""The cost of an iterate that is no equilibrium falls below the optimum; the feasible cost, at z re-solved, cannot."""

from __future__ import annotations

import torch
from drawing import LinearQuadratic, plt, save

from jiio_lightning import Augmented, Joint
from jiio_lightning.core.solvers import Anderson
from jiio_lightning.core.solvers.observers import Snapshot
from jiio_lightning.core.steps import Plain

STEPS = 25

quadratic = LinearQuadratic(radius=0.9, width=2, ridge=1.0)
best = float(quadratic.loss(quadratic.solution.z, quadratic.solution.x))
shown: list[float] = []
feasible: list[float] = []


def watch(now: Snapshot) -> None:
    v = Augmented.unpack(now.value, quadratic.start().hidden)
    shown.append(float(quadratic.loss(v.z, v.x)))
    feasible.append(float(quadratic.feasible(v.x)))


size = 1.2 / float(torch.linalg.matrix_norm(quadratic.curvature, 2))
Joint(Plain(size), method=Anderson(type=1, memory=5), max_steps=STEPS)(quadratic.problem(), quadratic.start(), [watch])
lowest = min(shown)
at = shown.index(lowest)

figure, axes = plt.subplots(figsize=(7, 3.6))
places = range(1, STEPS + 1)
axes.axhline(best, color="black", linewidth=1)
axes.annotate("the optimum", (STEPS, best), (0, -14), textcoords="offset points", ha="right")
axes.plot(places, feasible, color="tab:green", marker="o", markersize=4)
axes.plot(places, shown, color="tab:red", marker="o", markersize=4)
told = {"textcoords": "offset points", "arrowprops": {"arrowstyle": "->"}}
axes.annotate(f"feasible cost there: {feasible[at]:.2f}", (at + 1, feasible[at]), (30, 15), color="tab:green", **told)
axes.annotate(f"cheapest iterate: {lowest:.2f}", (at + 1, lowest), (30, 40), color="tab:red", **told)
axes.set(ylim=(2.5, 8), xlabel="joint step", ylabel="cost")
axes.grid(alpha=0.3)
save(figure, "feasible_cost")
