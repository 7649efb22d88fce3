"""What every learned start is: tensors that are fitted once and saved with the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class LearnedStart(nn.Module, ABC):
    """A start that is regressed from solved problems (``jiio learn_start``) and saved in the checkpoint with the weights.

    It changes where a solve begins, never what is solved. It has no tensors until it is fitted, and then neither does its
    checkpoint. A subclass says in ``regress`` what it fits, and in ``forward`` where a solve begins.

    Example:
        >>> class Mean(LearnedStart):
        ...     def regress(self, *, x):
        ...         return {"mean": x.mean(dim=0)}
        ...     def forward(self, count):
        ...         return self.mean.expand(count, -1)
        >>> start = Mean()
        >>> start.fit({"x": torch.tensor([[1.0], [3.0]])})
        >>> start(2).tolist(), list(start.state_dict())
        ([[2.0], [2.0]], ['mean'])
    """

    least: int = 1
    """Fewest solved samples for a fit."""

    @property
    def fitted(self) -> bool:
        """Whether a solve can begin here."""
        return bool(self._buffers)

    def clear(self) -> None:
        """Forget the fit: the weights have changed."""
        self._buffers.clear()

    def fit(self, examples: Mapping[str, Tensor]) -> None:
        """Fit to solved problems, one row of each tensor a problem.

        Raises:
            ValueError: if they are too few, or not finite.
        """
        count = len(next(iter(examples.values())))
        if count < self.least:
            raise ValueError(f"a start needs at least {self.least} solved samples, there are {count}")
        bad = [name for name, rows in examples.items() if not bool(torch.isfinite(rows).all())]
        if bad:
            raise ValueError(f"a start cannot be learned from {', '.join(bad)} that are not finite: check the checkpoint")
        self.clear()
        with torch.no_grad():
            for name, tensor in self.regress(**examples).items():
                self.register_buffer(name, tensor)

    @abstractmethod
    def regress(self, **examples: Tensor) -> dict[str, Tensor]:
        """The tensors of the fit, by name."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take whatever the checkpoint has, and forget what was there: no key is missing or unexpected."""
        self.clear()
        for name, tensor in state_dict.items():
            if name.startswith(prefix):
                self.register_buffer(name.removeprefix(prefix), tensor.detach().clone())
