"""What the figures of the ideas have in common."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from jiio_lightning import Augmented, InnerProblem

matplotlib.use("Agg")
matplotlib.rcParams |= {
    "svg.hashsalt": "jiio",  # the same bytes from the same numbers
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2,
    "figure.constrained_layout.use": True,
}
from matplotlib import pyplot as plt  # noqa: E402

COLOURS = {"z": "tab:blue", "mu": "tab:orange", "x": "tab:green"}


def save(figure: plt.Figure, name: str) -> None:
    """Write ``name.svg`` into the folder that the command line names, or beside the scripts."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


class LinearQuadratic:
    """min_x 1/2 |z - y|^2 + ridge/2 |x|^2 with z = W z + U x, whose solution is a formula; W is r times a rotation."""

    def __init__(self, radius: float = 0.5, hidden: int = 6, width: int = 3, ridge: float = 0.1) -> None:
        draw = torch.Generator().manual_seed(0)
        random = torch.randn(hidden, hidden, generator=draw, dtype=torch.float64)
        self.weight = radius * torch.linalg.qr(random).Q
        self.drive, self.target = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((hidden, width), (1, hidden)))
        self.ridge = ridge
        self.inverse = torch.linalg.inv(torch.eye(hidden, dtype=torch.float64) - self.weight)
        self.response = self.inverse @ self.drive  # dz*/dx

    def loss(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * (z - self.target).square().sum(1) + 0.5 * self.ridge * x.square().sum(1)

    def problem(self) -> InnerProblem:
        return InnerProblem(lambda z, x: z @ self.weight.T + x @ self.drive.T, self.loss)

    def start(self) -> Augmented:
        return Augmented.start(self.target.new_zeros(1, self.drive.shape[1]), self.drive.shape[0])

    def feasible(self, x: Tensor) -> Tensor:
        """The loss at the equilibrium of x."""
        return self.loss(x @ self.response.T, x)

    @property
    def curvature(self) -> Tensor:
        return self.response.T @ self.response + self.ridge * torch.eye(self.response.shape[1], dtype=torch.float64)

    @property
    def solution(self) -> Augmented:
        x = torch.linalg.solve(self.curvature, self.response.T @ self.target.T).T
        z = x @ self.response.T
        return Augmented(z, (z - self.target) @ self.inverse, x)
