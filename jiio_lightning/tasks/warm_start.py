"""Equilibria that go on from one training step to the next: (Implicit)^2's amortised solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor


@dataclass(frozen=True)
class WarmStart:
    """Begin each training solve at the z that its coordinates had at their last visit.

    A step then takes one evaluation of f, the one that has the gradient. A step with coordinates that are new, of which there are
    many where it draws few of many points, solves in full, from 0 at those.

    The residual ||f(z) - z|| / ||f(z)||, over the whole batch, costs a difference and two norms of z, and one number that is read
    from the device; while it is above ``tol`` each step takes one more evaluation than the last, and one less again where it is
    below half of that.

    Args:
        tol: residual that the budget follows; None takes one evaluation whatever it is, as the released code does.
        max_steps: evaluations beyond the one, at most.
    """

    tol: float | None = 1e-2
    max_steps: int = 10


class Cache:
    """z of every training coordinate at its last visit, and the number of evaluations that the next step takes before its own.

    Example:
        >>> cache, index = Cache(WarmStart(tol=0.1)), torch.arange(3)
        >>> cache.start(index, total=3, hidden=2)[1] is None  # not been there
        True
        >>> cache.keep(index, torch.ones(3, 2), residual=torch.tensor(0.5))
        >>> cache.commit()
        >>> z, evaluations = cache.start(index, total=3, hidden=2)
        >>> z.sum().item(), evaluations
        (6.0, 1)
    """

    def __init__(self, settings: WarmStart) -> None:
        self.settings = settings
        self.z = torch.zeros(0, 0)  # (total, D)
        self.seen = torch.zeros(0, dtype=torch.bool)
        self.complete = False
        self.budget = 0
        self.residual: Tensor | None = None  # of the last step: read when the next one begins, by when the device has it
        self._kept: list[tuple[Tensor | None, Tensor, Tensor]] = []  # since the optimiser's last step

    def start(self, index: Tensor, total: int, hidden: int, whole: bool = False) -> tuple[Tensor, int | None]:
        """z ``(N, D)`` at the coordinates ``index`` ``(N,)`` of ``total``, 0 where it is new, and the evaluations to take.

        None instead of their number asks for a solve in full: there is a new one. ``whole``: they are all of them in their order.
        """
        if self.z.shape != (total, hidden):
            self._allocate(index, total, hidden)
        self.z, self.seen = self.z.to(index.device), self.seen.to(index.device)  # a checkpoint's are on the host
        self._follow()
        self.complete = self.complete or bool(self.seen.all())
        new = not self.complete and not bool(self.seen[index].all())
        return self.z if whole else self.z[index], None if new else self.budget

    def keep(self, index: Tensor, z: Tensor, residual: Tensor, whole: bool = False) -> None:
        """Remember z ``(N, D)`` and the residual of a batch, a scalar, once the optimiser's step is done."""
        self._kept.append((None if whole else index, z, residual))

    def commit(self) -> None:
        """The optimiser's step is done: weights and z of a checkpoint are always of the same step."""
        for index, z, residual in self._kept:
            if index is None:  # nothing to scatter
                self.z, self.complete = z, True
                self.seen.fill_(True)
            else:
                self.z[index] = z
                self.seen[index] = True
            self.residual = residual
        self._kept.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"z": self.z, "seen": self.seen, "budget": self.budget, "residual": self.residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.z, self.seen, self.budget, self.residual = (state[name] for name in ("z", "seen", "budget", "residual"))
        self._kept.clear()

    def _allocate(self, index: Tensor, total: int, hidden: int) -> None:
        self.z = torch.zeros(total, hidden, device=index.device)
        self.seen = torch.zeros(total, dtype=torch.bool, device=index.device)
        self.complete, self.budget, self.residual = False, 0, None
        size = self.z.nbytes / 2**20
        rank_zero_info(f"warm start: z of {total:,} coordinates x {hidden}, {size:.0f} MiB on the device and in each checkpoint")

    def _follow(self) -> None:
        tol = self.settings.tol
        if tol is None or self.residual is None:
            return
        residual = float(self.residual)
        if residual > tol:
            self.budget = min(self.budget + 1, self.settings.max_steps)
        elif residual < tol / 2:
            self.budget = max(self.budget - 1, 0)
        self.residual = None
