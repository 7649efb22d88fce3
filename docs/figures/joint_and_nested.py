"""How far z, mu and x are from the solution, against evaluations of f: Joint moves all three, Nested solves two for each move."""

from __future__ import annotations

import torch
from drawing import COLOURS, LinearQuadratic, plt, save

from jiio_lightning import Augmented, Joint, Nested
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.solvers.observers import Snapshot
from jiio_lightning.core.steps import Plain

FORWARD, BACKWARD, STEPS = 18, 20, 350  # Table 9: T_f and T_b
LABELS = {"x": (3e-1, 8), "mu": (3e-4, -20), "z": (1e-4, 8)}
"""Of each curve: the error at which its name stands, and how far to the right of it."""

quadratic = LinearQuadratic()
size = Plain(0.3 / float(torch.linalg.matrix_norm(quadratic.curvature, 2)))
exact = vars(quadratic.solution)


def errors(solver: Joint | Nested) -> dict[str, list[float]]:
    """Relative, of each block, at every step in x."""
    found: dict[str, list[float]] = {name: [] for name in exact}

    def watch(now: Snapshot) -> None:
        v = Augmented.unpack(now.value, quadratic.start().hidden)
        for name, block in vars(v).items():
            found[name].append(float((block - exact[name]).norm() / exact[name].norm()))

    solver(quadratic.problem(), quadratic.start(), [watch])
    return found


joint = errors(Joint(size, max_steps=STEPS))
nested = errors(Nested(size, FixedPoint(Picard(), FORWARD), FixedPoint(Picard(), BACKWARD), max_steps=STEPS))

figure, panels = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True)
titles = "Joint: one evaluation of f a step", f"Nested: {FORWARD + BACKWARD} a step in x"
for axes, found, cost, title in zip(panels, (joint, nested), (1, FORWARD + BACKWARD), titles, strict=True):
    for name, values in found.items():
        places = [cost * (step + 1) for step in range(len(values))]
        axes.plot(places, values, color=COLOURS[name], linestyle=":" if name == "mu" else "-")
        error, right = LABELS[name]
        place = places[max(step for step, value in enumerate(values) if value > error)]
        axes.annotate(name, (place, error), (right, 0), textcoords="offset points", color=COLOURS[name])
    axes.set(xscale="log", yscale="log", ylim=(1e-5, 3), xlim=(1, 2e4), title=title)
    axes.set_xlabel("evaluations of f")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("relative error")
save(figure, "joint_and_nested")
