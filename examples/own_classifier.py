"""Attack an equilibrium classifier of one's own, in plain torch: the paper's PGD and the joint attack (Sec. 4.3).

python examples/own_classifier.py     # seconds
"""

import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from jiio_lightning import Augmented, InnerProblem, Joint, Nested
from jiio_lightning.core import L2Ball
from jiio_lightning.core.equilibrium import equilibrium
from jiio_lightning.core.solvers import Anderson, FixedPoint
from jiio_lightning.core.steps import Normalised, Settled
from jiio_lightning.models.lipschitz import bounded, tighten

HIDDEN, EPS, TIGHT, SOLVE = 64, 0.5, FixedPoint(Anderson(memory=6), 60, tol=1e-5), FixedPoint(Anderson(memory=6), 18)
JOINT = Joint(Normalised(0.4 * EPS, Settled(steps=10)), max_steps=80)


class Net(nn.Module):
    """z = tanh(W z + U x), read by a linear layer. The norm of W is at most 0.8, so that z exists."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.inject, self.h = bounded(nn.Linear(HIDDEN, HIDDEN), 0.8), nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, 10)

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(z) + self.inject(x))

    def forward(self, x: Tensor) -> Tensor:  # logits (B, 10) at the equilibrium, with the implicit gradient (Eq. 7)
        return self.h(equilibrium(self.f, x, x.new_zeros(len(x), HIDDEN), TIGHT, TIGHT))


def main(steps: int = 200) -> dict[str, float]:
    """Returns the accuracy on held-out digits, clean and attacked, where z is solved again at x + delta."""
    torch.manual_seed(0)
    net, (pixels, labels) = Net(), map(torch.tensor, load_digits(return_X_y=True))
    (train, x), (label, y) = (pixels.float() / 16).split([1497, 300]), labels.split([1497, 300])
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    for batch in torch.randint(1497, (steps, 128)):
        adam.zero_grad()
        F.cross_entropy(net(train[batch]), label[batch]).backward()
        adam.step()
        tighten(net)  # the bound follows the weights
    worst = InnerProblem(lambda z, d: net.f(z, x + d), lambda z, d: -F.cross_entropy(net.h(z), y, reduction="none"), L2Ball(EPS))
    accuracy = {"clean": (net(x).argmax(1) == y).float().mean().item()}
    for name, attack in {"PGD": Nested(Normalised(0.2 * EPS), SOLVE, SOLVE, 20), "joint": JOINT}.items():
        began = time.perf_counter()
        delta = attack(worst, Augmented.start(torch.zeros_like(x), HIDDEN)).v.x
        print(f"{name}: {time.perf_counter() - began:.2f} s")
        accuracy[name] = (net(x + delta).argmax(1) == y).float().mean().item()
    return accuracy


if __name__ == "__main__":
    print(main())
