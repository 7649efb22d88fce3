"""A plain classifier of labelled images: what the feature extractor of a Frechet distance is trained by."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from jiio_lightning.metrics.features import Features


class FeatureClassifier(nn.Module):
    """Features and one linear layer of logits.

    Args:
        features: the extractor.
        num_classes: number of logits.
    """

    def __init__(self, features: Features, num_classes: int = 10) -> None:
        super().__init__()
        self.features = features
        self.logits = nn.Linear(features.num_features, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [-1, 1] to logits ``(B, num_classes)``."""
        return self.logits(self.features(image))


class Classification(LightningModule):
    """Trains :class:`FeatureClassifier` by cross-entropy; there is no inner problem, and no solver is needed.

    Args:
        features: the extractor.
        num_classes: of the data.
        learning_rate: of Adam, the peak of a one-cycle schedule (Smith 2018).

    Raises:
        ValueError: if there are fewer than two classes.
    """

    def __init__(self, features: Features, num_classes: int = 10, learning_rate: float = 5e-3) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs labels of at least two classes, model.num_classes is {num_classes}")
        self.net = FeatureClassifier(features, num_classes)
        self.num_classes = num_classes
        self.learning_rate = learning_rate
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self._logits(batch), batch.label)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.label))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val", self.val_accuracy)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test", self.test_accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: Any, stage: str, accuracy: MulticlassAccuracy) -> dict[str, Tensor]:
        """The metrics of each sample, with its ``index``: ``loss`` and whether it is classified right, ``accuracy``."""
        logits = self._logits(batch)
        accuracy(logits, batch.label)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True)
        right = logits.argmax(dim=1) == batch.label
        loss = F.cross_entropy(logits, batch.label, reduction="none")
        return {"accuracy": right.float(), "loss": loss, "index": batch.index}

    def _logits(self, batch: Any) -> Tensor:
        self._check(batch.image, batch.label)
        return self.net(batch.image)

    def _check(self, image: Tensor, label: Tensor) -> None:
        shape = self.net.features.image_shape
        if tuple(image.shape[1:]) != shape:
            raise ValueError(
                f"the data has images of {tuple(image.shape[1:])}: set model.features.image_shape to it, it is {shape}"
            )
        if int(label.max()) >= self.num_classes:
            raise ValueError(f"a label is {int(label.max())}: set model.num_classes above it, it is {self.num_classes}")
