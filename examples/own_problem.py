"""A problem of one's own in plain torch: fill in what is missing of a table, by a net that is trained through its inputs.

Each row has a code x, of which f and h make the row. The inner problem finds the code that fits the known entries, and the
gradient of the Lagrangian trains the weights (Eq. 19): no encoder, no backward solve.

    python examples/own_problem.py     # seconds
"""

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn

from jiio_lightning import Augmented, InnerProblem, Joint
from jiio_lightning.core import StepSizes, Sweeps
from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.models.lipschitz import bounded, tighten

CODE, HIDDEN = 3, 32


class Net(nn.Module):
    """z = tanh(W z + U x) with a norm of W of at most 0.8, so that z exists, and a row of the table h(z)."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.inner = bounded(nn.Linear(HIDDEN, HIDDEN), 0.8)
        self.inject, self.h = nn.Linear(CODE, HIDDEN), nn.Linear(HIDDEN, columns)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(z) + self.inject(x))


def main(steps: int = 300) -> tuple[float, float]:
    """Returns the mean squared error of the entries that were hidden: of the net, and of the mean of each column."""
    torch.manual_seed(0)
    table = torch.tensor(load_wine().data).float()
    table = (table - table.mean(0)) / table.std(0)  # 178 wines, 13 properties
    known = torch.rand_like(table) > 0.2
    net, start = Net(table.shape[1]), Augmented.start(torch.zeros(len(table), CODE), HIDDEN)
    adam = torch.optim.Adam(net.parameters(), 5e-3, weight_decay=1e-3)
    problem = InnerProblem(net.f, lambda z, x: ((net.h(z) - table).square() * known).sum(1) + x.square().sum(1))
    joint = Joint(step_sizes=StepSizes(z=1.0, mu=1.0), sweeps=Sweeps(count=2, dual_end=4), max_steps=10)
    for _ in range(steps):
        v = joint(problem, start).v
        adam.zero_grad()
        problem.lagrangian(v).mean().backward()
        adam.step()
        tighten(net)  # the bound follows the weights
    x = Joint(max_steps=60)(problem, start).require().v.x
    z = FixedPoint(Anderson(memory=6), max_steps=60, tol=1e-5)(lambda z: net.f(z, x), start.z).value  # feasible: solved at x
    errors = [(row - table)[~known].square().mean().item() for row in (net.h(z), torch.zeros_like(table))]
    print(f"hidden entries: squared error {errors[0]:.3f}, by the means of the columns {errors[1]:.3f}")
    return errors[0], errors[1]


if __name__ == "__main__":
    main()
