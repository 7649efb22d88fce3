"""Linear cells of nearly one Frobenius norm, which Eq. 27 penalises; their leading modes decide about the solve."""

from __future__ import annotations

import torch
from drawing import plt, save

from jiio_lightning.core.jacobian import jacobian_penalty
from jiio_lightning.core.solvers import Last, Picard, solve
from jiio_lightning.core.solvers.base import plain_map
from jiio_lightning.core.solvers.observers import Trace

WIDTH, STEPS, OTHERS = 400, 40, 0.3  # all modes but the leading one have this length
MODES = (0.5, 0.7, 0.9, 1.05)

draw = torch.Generator().manual_seed(0)
basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw, dtype=torch.float64)).Q
x = torch.randn(1, WIDTH, generator=draw, dtype=torch.float64)
probes = torch.randn(50, 1, WIDTH, generator=draw, dtype=torch.float64)

figure, axes = plt.subplots(figsize=(7, 3.8))
for mode in MODES:
    lengths = torch.full((WIDTH,), OTHERS, dtype=torch.float64)
    lengths[0] = mode
    weight = basis @ torch.diag(lengths) @ basis.T

    def f(z: torch.Tensor, x: torch.Tensor, weight: torch.Tensor = weight) -> torch.Tensor:
        return z @ weight + x

    trace = Trace()
    solve(Picard(), plain_map(lambda z: f(z, x)), 0 * x, max_steps=STEPS, selection=Last(), observers=[trace])  # noqa: B023
    residuals = [float(now.residual.amax()) for now in trace.snapshots]
    penalty = float(jacobian_penalty(f, x, x, probes))
    (line,) = axes.plot(range(1, STEPS + 1), residuals)
    seen = max(step for step, residual in enumerate(residuals) if residual > 2e-5)
    label = f"mode {mode:g}\n(Eq. 27: {penalty:.3f})"
    axes.annotate(label, (seen + 1, residuals[seen]), (8, 0), textcoords="offset points", color=line.get_color(), va="center")
axes.axhline(1e-2, color="black", linewidth=1, linestyle=":")
axes.annotate("feasible_tol", (STEPS, 1e-2), (8, -4), textcoords="offset points")
axes.set(
    yscale="log",
    ylim=(1e-6, 1.5),
    xlim=(1, STEPS),
    xlabel="evaluations of f",
    ylabel="residual of z",
    title="leading mode of J_z, and Eq. 27",
)
axes.grid(alpha=0.3)
save(figure, "contraction")
