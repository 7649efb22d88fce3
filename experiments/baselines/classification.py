"""Training and export of the feature classifier behind a Frechet distance (its net: ``jiio_lightning/metrics/features.py``)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from experiments.baselines.base import Baseline
from jiio_lightning.files import whole_file
from jiio_lightning.metrics.extractors import FORMAT, check_name, checked_hash
from jiio_lightning.metrics.features import Features


class Classification(Baseline):
    """Trains features, with one linear layer of logits above them, by cross-entropy.

    Args:
        features: the extractor.
        num_classes: of the data.
        learning_rate: of Adam, the peak of a one-cycle schedule (Smith 2018).
    """

    def __init__(self, features: Features, num_classes: PositiveInt = 10, learning_rate: float = 5e-3) -> None:
        super().__init__(learning_rate, one_cycle=True)
        logits = nn.Linear(features.num_features, num_classes)
        self.net = nn.Sequential(OrderedDict(features=features, logits=logits))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.logits(batch), batch.label)
        self.log_means("train", {"loss": loss.detach()}, batch)
        return loss

    @torch.no_grad()
    def metrics(self, batch: Any) -> dict[str, Tensor]:
        """``loss``, and ``accuracy``: 1 where a sample is classified right, else 0."""
        logits = self.logits(batch)
        right = logits.argmax(dim=1) == batch.label
        return {"accuracy": right.float(), "loss": F.cross_entropy(logits, batch.label, reduction="none")}

    def logits(self, batch: Any) -> Tensor:
        """Logits ``(B, num_classes)``; a ValueError if the images or the labels do not fit the net."""
        shape, wanted = tuple(batch.image.shape[1:]), self.net.features.image_shape
        if shape != wanted:
            raise ValueError(f"the data has images of {shape}: set model.features.image_shape to it, it is {wanted}")
        label, num_classes = int(batch.label.max()), self.net.logits.out_features
        if label >= num_classes:
            raise ValueError(f"a label is {label}: set model.num_classes above it, it is {num_classes}")
        return self.net(batch.image)


class ExportFeatures(Callback):
    """Writes the features of a :class:`Classification` after its training, ``<run folder>/features.pt``, and logs its SHA-256.

    The file is what ``TrainedFeatures`` reads: a name, the settings of the net and its tensors, no pickled code.

    Args:
        name: of the extractor, part of the name of every distance over it (``mnist_cnn64`` gives ``frechet_mnist_cnn64``).

    Raises:
        ValueError: if the name cannot be part of a metric's, or would pass for an FID.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, Classification):
            return
        path = Path(trainer.default_root_dir) / "features.pt"
        features = pl_module.net.features
        tensors = {name: tensor.detach().cpu() for name, tensor in features.state_dict().items()}
        with whole_file(path) as part:
            torch.save({"format": FORMAT, "name": self.name, "settings": features.settings, "state_dict": tensors}, part)
        rank_zero_info(f"features: {path}, SHA-256 {checked_hash(path, None)}")
