"""The linear yardstick beside a generator's test error."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from jiio_lightning.metrics.pca import pca_error
from jiio_lightning.tasks.generation import Generation


class PCAReference(Callback):
    """Logs ``test/pca_error``, PCA with the generator's latent size on the same split, and ``test/error_over_pca``.

    Args:
        train_limit: fit PCA on so many training images at most.
    """

    def __init__(self, train_limit: int = 10_000) -> None:
        self.train_limit = train_limit

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Generation) or not hasattr(data, "split_images"):
            return
        train = data.split_images("train", self.train_limit)
        reference = pca_error(train, data.split_images("test"), pl_module.net.latent)
        pl_module.log("test/pca_error", reference, rank_zero_only=True)
        pl_module.log("test/error_over_pca", trainer.callback_metrics["test/error"] / reference, rank_zero_only=True)
