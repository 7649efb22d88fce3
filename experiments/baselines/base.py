"""What the baselines share: Adam, metrics of each sample, and checkpoints that fit or are refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor

from jiio_lightning.tasks.base import LEARNED, check_weights, in_full_precision
from jiio_lightning.tasks.optimiser import adam
from jiio_lightning.tasks.processes import processes


class Baseline(LightningModule, ABC):
    """A network that is trained without an inner problem, and therefore without an inner solver."""

    def __init__(self, learning_rate: float, one_cycle: bool) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.one_cycle = one_cycle

    @abstractmethod
    def metrics(self, batch: Any) -> dict[str, Tensor]:
        """Metrics of each sample ``(B,)`` by name, in evaluation."""

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``metrics`` and ``index`` of each sample; the means are logged."""
        return self._evaluated("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """As validation_step."""
        return self._evaluated("test", batch)

    def configure_optimizers(self) -> Any:
        return adam(self, self.learning_rate, self.one_cycle)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in PyTorch, but weights of another net are one ValueError, and a generator's learned start is left out."""
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith(LEARNED)}
        if strict:
            check_weights(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def log_means(self, stage: str, metrics: dict[str, Tensor], batch: Any) -> None:
        """Log the mean of each metric as ``stage/name``."""
        for name, value in metrics.items():
            shown = name in ("accuracy", "error", "loss")
            sync = stage != "train"
            count = len(batch.index) * processes()  # as in JIIOTask
            self.log(f"{stage}/{name}", value.mean(), prog_bar=shown, batch_size=count, sync_dist=sync)

    @in_full_precision
    def _evaluated(self, stage: str, batch: Any) -> dict[str, Tensor]:
        metrics = self.metrics(batch)
        self.log_means(stage, metrics, batch)
        return metrics | {"index": batch.index}
