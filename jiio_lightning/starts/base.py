"""What every learned start is: tensors that exist once they have been fitted, and that travel with the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class LearnedStart(nn.Module, ABC):
    """A start that is regressed from solved problems (``jiio learn_start``), and kept in the checkpoint beside the weights.

    It changes where a solve begins, never what is solved. Without tensors it is not fitted, and a solve begins where the task
    says; a checkpoint from before is such a one.
    """

    least: int = 1
    """Fewest solved samples that it can be fitted to."""

    @property
    def fitted(self) -> bool:
        """Whether there is something to start from."""
        return bool(self._buffers)

    def clear(self) -> None:
        """Forget it: the weights have changed."""
        self._buffers.clear()

    def fit(self, examples: Mapping[str, Tensor]) -> None:
        """Regress from solved problems, the rows of all tensors.

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
        """The tensors to keep, by name."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """What the checkpoint has, whatever there was before: nothing is missing and nothing unexpected."""
        self.clear()
        for name, tensor in state_dict.items():
            if name.startswith(prefix):
                self.register_buffer(name.removeprefix(prefix), tensor.detach().clone())
