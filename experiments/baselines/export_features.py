"""The trained feature extractor as a file of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from experiments.baselines.classification import Classification
from jiio_lightning.metrics.extractors import FORMAT, check_name, checked_hash


class ExportFeatures(Callback):
    """Writes the features of a :class:`Classification` after its training, ``<run folder>/features.pt``, and says its SHA-256.

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
        path.parent.mkdir(parents=True, exist_ok=True)
        features = pl_module.net.features
        tensors = {name: tensor.detach().cpu() for name, tensor in features.state_dict().items()}
        torch.save({"format": FORMAT, "name": self.name, "settings": features.settings, "state_dict": tensors}, path)
        rank_zero_info(f"features: {path}, SHA-256 {checked_hash(path, None)}")
