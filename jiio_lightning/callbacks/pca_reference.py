"""The linear baseline of a generator's test error."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from sklearn.decomposition import PCA

from jiio_lightning.metrics.pca import fit_pca, pca_errors
from jiio_lightning.tasks.interface import LatentModel
from jiio_lightning.tasks.processes import processes


class PCAReference(Callback):
    """Logs ``test/pca_error``, PCA with the generator's latent size on the same test images, and ``test/error_over_pca``.

    Args:
        train_limit: fit PCA on so many training images at most.
    """

    def __init__(self, train_limit: PositiveInt = 10_000) -> None:
        self.train_limit = train_limit
        self._pca: PCA | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if isinstance(pl_module, LatentModel) and hasattr(data, "split_images"):
            self._pca = fit_pca(data.split_images("train", self.train_limit), pl_module.net.latent)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._pca is not None:
            error = pca_errors(self._pca, batch.image).mean()
            pl_module.log("test/pca_error", error, batch_size=len(batch.image) * processes(), sync_dist=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pca is not None:
            metrics = trainer.callback_metrics
            pl_module.log("test/error_over_pca", metrics["test/error"] / metrics["test/pca_error"])
