"""A solver of one's own, compared honestly: Aitken's relaxation of the joint iteration, beside Picard and Anderson.

python examples/own_solver.py FOLDER     # seconds; FOLDER gets own_solver.png
"""

import sys
import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from jiio_lightning import Augmented, InnerProblem, Joint
from jiio_lightning.core.solvers import Anderson, FixedPoint, Method, Picard
from jiio_lightning.models.lipschitz import bounded

TIGHT, BUDGETS = FixedPoint(Anderson(memory=6), max_steps=80, tol=1e-6), (5, 10, 20, 40, 80)


class Aitken(Method):
    """v+ = v + w (F(v) - v), w from the last two gaps of each sample: how to start and how to step, the loop is there."""

    def init(self, v0: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(v0), torch.ones_like(v0[:, :1])

    def step(self, v: Tensor, fv: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        gap, (old, w) = fv - v, state
        change = (gap - old) * old.any()  # the first step is plain
        secant = -w * (old * change).sum(1, keepdim=True) / change.square().sum(1, keepdim=True)
        w = torch.where(secant.isfinite(), secant, w).clamp(0.5, 2.0)
        return v + w * gap, (gap, w)


METHODS = {"Picard": Picard(), "Aitken": Aitken(), "Anderson": Anderson(memory=5)}


def main(folder: Path, rounds: int = 3) -> dict[str, list[float]]:
    """Returns the mean cost of each method, by budget, where z is solved again at x; all take turns, and medians count."""
    torch.manual_seed(0)
    inner, inject, h = bounded(nn.Linear(64, 64), 0.9), nn.Linear(8, 64), nn.Linear(64, 32)  # f contracts
    target, start = torch.randn(128, 32), Augmented.start(torch.zeros(128, 8), hidden=64)
    problem = InnerProblem(lambda z, x: torch.tanh(inner(z) + inject(x)), lambda z, x: (h(z) - target).square().sum(1))
    costs, seconds = ({name: [[] for _ in BUDGETS] for name in METHODS} for _ in range(2))
    for place, name in [(place, name) for _ in range(rounds) for place in range(len(BUDGETS)) for name in METHODS]:
        began = time.perf_counter()
        x = Joint(method=METHODS[name], max_steps=BUDGETS[place])(problem, start).v.x
        seconds[name][place].append(time.perf_counter() - began)
        costs[name][place].append(problem.loss(TIGHT(lambda z, x=x: problem.f(z, x), start.z).value, x).mean().item())
    for name in METHODS:
        plt.plot(list(map(median, seconds[name])), list(map(median, costs[name])), "o-", label=name)
    plt.xlabel("seconds, 128 samples"), plt.ylabel("feasible cost"), plt.legend()
    plt.savefig(folder / "own_solver.png")
    return {name: list(map(median, found)) for name, found in costs.items()}


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
