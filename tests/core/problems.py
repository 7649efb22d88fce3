"""Small problems whose answers are known without the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp

from jiio_lightning.core import Augmented, InnerProblem
from jiio_lightning.core.equilibrium import Linearisation
from jiio_lightning.core.projections import unconstrained


@dataclass(frozen=True)
class LinearQuadratic:
    """min_x scale (1/2 ||z - y||^2 + ridge/2 ||x||^2) subject to z = W z + U x + c, with its closed form."""

    weight: Tensor  # W (n, n), of norm 0.5
    drive: Tensor  # U (n, d)
    bias: Tensor  # c (n,)
    target: Tensor  # y (B, n)
    ridge: float = 0.1
    scale: float = 1.0

    @classmethod
    def random(cls, batch: int = 4, hidden: int = 6, width: int = 3, seed: int = 0) -> LinearQuadratic:
        draw = torch.Generator().manual_seed(seed)
        shapes = (hidden, hidden), (hidden, width), (hidden,), (batch, hidden)
        weight, drive, bias, target = (torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes)
        return cls(0.5 * weight / torch.linalg.matrix_norm(weight, 2), drive, bias, target)

    def rows(self, index: slice) -> LinearQuadratic:
        """The problem of some samples alone."""
        return replace(self, target=self.target[index])

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return z @ self.weight.T + x @ self.drive.T + self.bias

    def loss(self, z: Tensor, x: Tensor) -> Tensor:
        square = (z - self.target).square().sum(dim=1) + self.ridge * x.square().sum(dim=1)
        return 0.5 * self.scale * square

    def problem(self, project: Callable[[Tensor], Tensor] = unconstrained) -> InnerProblem:
        return InnerProblem(self.f, self.loss, project)

    def start(self) -> Augmented:
        return Augmented.start(self.target.new_zeros(len(self.target), self.drive.shape[1]), len(self.bias))

    @property
    def resolvent(self) -> Tensor:
        """(I - W)^-1."""
        return torch.linalg.inv(torch.eye(len(self.bias), dtype=self.bias.dtype) - self.weight)

    @property
    def hessian(self) -> Tensor:
        """Of the loss of the equilibrium in x, ``(d, d)``."""
        response = self.resolvent @ self.drive
        return self.scale * (response.T @ response + self.ridge * torch.eye(self.drive.shape[1], dtype=self.bias.dtype))

    def step(self, share: float = 0.3) -> float:
        """A plain step in x: a share of the inverse of the largest curvature."""
        return share / float(torch.linalg.matrix_norm(self.hessian, 2))

    def solution(self) -> Augmented:
        """(z*, mu*, x*) from the normal equations."""
        response, offset = self.resolvent @ self.drive, self.resolvent @ self.bias
        x = torch.linalg.solve(self.hessian, self.scale * response.T @ (self.target - offset).T).T
        z = x @ response.T + offset
        return Augmented(z, self.scale * (z - self.target) @ self.resolvent, x)


class TanhDEQ(nn.Module):
    """z = tanh(W z + U x + c) with a linear head H: nonlinear in everything, a contraction in z."""

    def __init__(self, hidden: int = 5, width: int = 3, outputs: int = 4, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(hidden, hidden, generator=draw)
        self.cell = nn.Parameter(0.6 * weight / torch.linalg.matrix_norm(weight, 2))
        self.injection = nn.Parameter(0.7 * torch.randn(hidden, width, generator=draw))
        self.bias = nn.Parameter(0.3 * torch.randn(hidden, generator=draw))
        self.head = nn.Parameter(0.6 * torch.randn(outputs, hidden, generator=draw))
        self.hidden, self.width, self.outputs = hidden, width, outputs

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.cell.T + x @ self.injection.T + self.bias)

    def fit(self, target: Tensor, ridge: float = 0.2, sign: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
        """sign * 1/2 ||H z - y||^2 + ridge/2 ||x||^2 for each sample."""

        def loss(z: Tensor, x: Tensor) -> Tensor:
            error = (z @ self.head.T - target).square().sum(dim=1)
            return 0.5 * sign * error + 0.5 * ridge * x.square().sum(dim=1)

        return loss


@contextmanager
def shifted(parameter: Tensor, shift: Tensor) -> Iterator[None]:
    """A parameter moved for a while."""
    with torch.no_grad():
        kept = parameter.clone()
        parameter.add_(shift)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def directional(value: Callable[[], Tensor], parameter: Tensor, direction: Tensor, step: float = 1e-5) -> Tensor:
    """Central difference of a value along a direction of one parameter."""
    with shifted(parameter, step * direction):
        above = value()
    with shifted(parameter, -step * direction):
        below = value()
    return (above - below) / (2 * step)


def explicit_gradients(problem: InnerProblem, v: Augmented) -> Augmented:
    """The rows of Eq. 14 with explicit Jacobians, sample by sample."""
    rows = []
    for i in range(v.z.shape[0]):

        def f(z: Tensor, x: Tensor) -> Tensor:
            return problem.f(z.unsqueeze(0), x.unsqueeze(0)).squeeze(0)

        def loss(z: Tensor, x: Tensor, i: int = i) -> Tensor:
            zs, xs = v.z.index_put((torch.tensor(i),), z), v.x.index_put((torch.tensor(i),), x)
            return problem.loss(zs, xs)[i]

        z, mu, x = v.z[i], v.mu[i], v.x[i]
        jz, jx = jacrev(f, argnums=(0, 1))(z, x)
        lz, lx = grad(loss, argnums=(0, 1))(z, x)
        rows.append((jz.T @ mu + lz - mu, f(z, x) - z, jx.T @ mu + lx))
    return Augmented(*(torch.stack(block).detach() for block in zip(*rows, strict=True)))


def polish(problem: InnerProblem, v: Augmented, radius: float | None = None, steps: int = 6) -> Augmented:
    """v brought to a KKT point by Newton's method on Eq. 14, with the multiplier of ``||x|| = radius`` if that is given.

    Written with torch.func alone: it shares no code with the package.
    """
    n, d = v.z.shape[1], v.x.shape[1]
    multiplier = torch.zeros(v.x.shape[0], 1)
    if radius is not None:
        pull = explicit_gradients(problem, v).x
        multiplier = -(pull * v.x).sum(dim=1, keepdim=True) / radius**2
    packed = torch.cat([v.z, v.mu, v.x, multiplier], dim=1).detach()

    def conditions(flat: Tensor) -> Tensor:
        z, mu, x, nu = flat.view_as(packed).split([n, n, d, 1], dim=1)
        image, back = vjp(problem.f, z, x)
        jz, jx = back(mu)
        lz, lx = grad(lambda z, x: problem.loss(z, x).sum(), argnums=(0, 1))(z, x)
        last = nu if radius is None else x.square().sum(dim=1, keepdim=True) - radius**2
        return torch.cat([image - z, jz + lz - mu, jx + lx + nu * x, last], dim=1).flatten()

    flat = packed.flatten()
    for _ in range(steps):
        error = conditions(flat)
        if error.norm() < 1e-14:
            break
        flat = (flat - torch.linalg.solve(jacrev(conditions)(flat), error)).detach()
    assert conditions(flat).norm() < 1e-11, "the reference did not converge"
    z, mu, x, nu = flat.view_as(packed).split([n, n, d, 1], dim=1)
    assert radius is None or bool((nu > 0).all()), "the ball is not active: a poor example"
    return Augmented(z, mu, x)


def equilibrium_of(problem: InnerProblem, x: Tensor, hidden: int, steps: int = 200) -> Tensor:
    """z = f(z, x) by many plain iterations."""
    z = torch.zeros(x.shape[0], hidden)
    with torch.no_grad():
        for _ in range(steps):
            z = problem.f(z, x)
    return z


def spectral_radius(f: Callable[[Tensor, Tensor], Tensor], z: Tensor, x: Tensor, probe: Tensor, steps: int = 40) -> Tensor:
    """Spectral radius of J_z for each sample ``(B,)`` by power iteration from a random probe ``(B, n)``.

    A dominant pair of complex eigenvalues makes single growth factors swing: the result is their geometric mean over the
    second half.
    """
    at, growth = Linearisation(f, z, x), []
    for _ in range(steps):
        probe = at.pull_z(probe / probe.norm(dim=1, keepdim=True))
        growth.append(probe.norm(dim=1).log())
    return torch.stack(growth[steps // 2 :]).mean(dim=0).exp()
