"""AutoAttack (Croce & Hein 2020) on an equilibrium model, through the optional package torchattacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn

from jiio_lightning.attacks.base import Attack
from jiio_lightning.attacks.target import Target
from jiio_lightning.core.equilibrium import equilibrium
from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint
from jiio_lightning.models.interface import Classifier

NORMS = {"l2": "L2", "linf": "Linf"}


class ImplicitForward(nn.Module):
    """Images to logits as one differentiable function: a solve forwards and the implicit function theorem backwards, no more."""

    def __init__(self, net: Classifier, forward_solver: FixedPoint, backward_solver: FixedPoint) -> None:
        super().__init__()
        self.net = net
        self.forward_solver = forward_solver
        self.backward_solver = backward_solver

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, num_classes)``."""
        pixels = image.flatten(1)
        start = pixels.new_zeros(len(pixels), self.net.hidden)
        return self.net.h(equilibrium(self.net.f, pixels, start, self.forward_solver, self.backward_solver))


class AutoAttack(Attack):
    """The standard ensemble: APGD on cross-entropy and on the targeted DLR loss, FAB, Square. It always keeps the pixel box.

    Args:
        version: ``standard`` or ``rand``.
        forward: solve of z.
        backward: solve of the adjoint.
        seed: of its random choices.
    """

    def __init__(
        self, version: str = "standard", forward: FixedPoint | None = None, backward: FixedPoint | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.version = version
        self.forward = FixedPoint(Anderson(memory=8), 40, tol=1e-4) if forward is None else forward
        self.backward = FixedPoint(Anderson(memory=8), 40, tol=1e-4) if backward is None else backward
        self.seed = seed

    def perturb(self, target: Target, restart: int) -> Tensor:
        threat, image = target.threat, target.image
        model = ImplicitForward(target.net, self.forward, self.backward).train(target.net.training)
        # torchattacks draws from the global generators: they are put back afterwards
        with _frozen_weights(target.net), torch.random.fork_rng(), torch.enable_grad():
            attack = _torchattacks().AutoAttack(
                model, NORMS[threat.norm], threat.eps, self.version, target.net.num_classes, seed=self.seed
            )
            attacked = attack(image, target.label)
        return target.problem.project(attacked.to(image).flatten(1) - target.pixels)


def _torchattacks() -> ModuleType:
    try:
        return import_module("torchattacks")
    except ImportError as error:
        raise ValueError(
            "autoattack needs the package torchattacks: `pip install --no-deps torchattacks==3.5.1` (it pins an old requests)"
        ) from error


@contextmanager
def _frozen_weights(net: nn.Module) -> Iterator[None]:
    """No gradients for the weights inside: an attack that calls ``backward`` would leave some."""
    wanted = [weight for weight in net.parameters() if weight.requires_grad]
    for weight in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
