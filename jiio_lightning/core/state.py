"""The augmented iterate v = (z, mu, x) of Sec. 3.2 and its packing to one matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmented:
    """The three blocks of the augmented DEQ, one row for each sample.

    Example:
        >>> v = Augmented.start(x=torch.zeros(8, 3), hidden=5)
        >>> v.pack().shape
        torch.Size([8, 13])
        >>> Augmented.unpack(v.pack(), hidden=5).x.shape
        torch.Size([8, 3])
    """

    z: Tensor  # hidden state (B, n)
    mu: Tensor  # dual of the constraint z = f(z, x), (B, n)
    x: Tensor  # the input that is optimised (B, d)

    @classmethod
    def start(cls, x: Tensor, hidden: int) -> Augmented:
        """``v0`` with z = mu = 0 of width ``hidden`` (n) at the given x ``(B, d)``."""
        zero = x.new_zeros(x.shape[0], hidden)
        return cls(z=zero, mu=zero.clone(), x=x)

    @property
    def hidden(self) -> int:
        """Width n of z and of mu."""
        return self.z.shape[1]

    def pack(self) -> Tensor:
        """One matrix ``(B, 2 n + d)`` in the order z, mu, x."""
        return torch.cat([self.z, self.mu, self.x], dim=1)

    @classmethod
    def unpack(cls, packed: Tensor, hidden: int) -> Augmented:
        """Views of the three blocks of a packed ``(B, 2 n + d)`` matrix."""
        z, mu, x = packed.split([hidden, hidden, packed.shape[1] - 2 * hidden], dim=1)
        return cls(z, mu, x)

    def detach(self) -> Augmented:
        """The same values, outside any graph."""
        return Augmented(self.z.detach(), self.mu.detach(), self.x.detach())

    def clone(self) -> Augmented:
        """A copy that shares no memory with this one."""
        return Augmented(self.z.clone(), self.mu.clone(), self.x.clone())
