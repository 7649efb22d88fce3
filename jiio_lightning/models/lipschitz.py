"""A bound on the spectral norm of weights: with it a cell is a contraction, whose equilibrium plain iteration finds."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

BLOCK = 8
"""Leading singular vectors that are followed: one step of Adam may bring up another one, which a single vector finds too late."""
SETTLE = 50
"""Iterations of a new weight, whose leading singular vectors are not known yet."""


class SpectralBound(nn.Module):
    r"""``W / max(1, sigma / bound)``: a weight whose largest singular value is at most ``bound``; a smaller one stays as it is.

    sigma is :math:`u^\top W v` with the leading singular vectors as they were at the last ``tighten``: between two of them the
    weight is a fixed function of its parameter, so that the cell does not change within a solve. torch's own ``spectral_norm``
    iterates in every forward pass, and always divides.

    Example:
        >>> linear = bounded(nn.Linear(2, 2, bias=False), bound=0.5)
        >>> linear.weight = torch.diag(torch.tensor([2.0, 0.1]))  # assigns the parameter behind it
        >>> tighten(linear, iterations=20)
        >>> torch.linalg.svdvals(linear.weight).tolist()
        [0.500, 0.025]
    """

    u: Tensor  # (out,)
    v: Tensor  # (in,)
    block: Tensor  # (in, k)

    def __init__(self, weight: Tensor, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("u", torch.zeros_like(weight[:, 0]))
        self.register_buffer("v", torch.zeros_like(weight[0]))
        # a generator of its own: bounding a weight leaves the stream of random numbers as it was
        draw = torch.randn(weight.shape[1], min(BLOCK, *weight.shape), generator=torch.Generator().manual_seed(0))
        self.register_buffer("block", draw.to(weight))
        self.update(weight, SETTLE)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # a bound that is rounded is none
            sigma = torch.dot(self.u, weight @ self.v)
        return weight * (self.bound / sigma.clamp_min(self.bound))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The parameter of an assigned weight: itself."""
        return weight

    @torch.no_grad()
    def update(self, weight: Tensor, iterations: int) -> None:
        """Follow the leading singular vectors of the parameter by subspace iteration."""
        for _ in range(iterations):
            self.block.copy_(torch.linalg.qr(weight.mT @ (weight @ self.block))[0])
        try:
            left, _, right = torch.linalg.svd(weight @ self.block, full_matrices=False)
        except torch.linalg.LinAlgError:  # the weight is not finite: the next loss is not either, and says so
            return
        self.u.copy_(left[:, 0])
        self.v.copy_(self.block @ right[0])


def bounded(linear: nn.Linear, bound: float | None) -> nn.Linear:
    """The same layer with its spectral norm bounded; None leaves it as it is."""
    if bound is not None:
        parametrize.register_parametrization(linear, "weight", SpectralBound(linear.weight, bound))
    return linear


def tighten(module: nn.Module, iterations: int = 10) -> None:
    """Bring every bound of a module up to date with its weights: once a training step, after the optimiser's."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            weight = cast(nn.ModuleDict, part.parametrizations)["weight"]
            for bound in cast(parametrize.ParametrizationList, weight):
                if isinstance(bound, SpectralBound):
                    bound.update(cast(Tensor, weight.original), iterations)


def has_bounds(module: nn.Module) -> bool:
    """Whether there is anything to ``tighten``."""
    return any(isinstance(part, SpectralBound) for part in module.modules())
