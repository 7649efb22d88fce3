"""The methods of few-shot learning that JIIO is compared with (Table 6)."""

from jiio_lightning.tasks.fewshot.base import FewShot, GradientBased
from jiio_lightning.tasks.fewshot.implicit import ImplicitMAML
from jiio_lightning.tasks.fewshot.maml import MAML
from jiio_lightning.tasks.fewshot.prototypes import PrototypicalNetwork
from jiio_lightning.tasks.fewshot.reptile import Reptile

__all__ = ["FewShot", "GradientBased", "ImplicitMAML", "MAML", "PrototypicalNetwork", "Reptile"]
