"""The methods of few-shot learning that JIIO is compared with (Table 6), and their net."""

from experiments.baselines.fewshot.base import FewShot, GradientBased
from experiments.baselines.fewshot.convnet import Conv4
from experiments.baselines.fewshot.implicit import ImplicitMAML
from experiments.baselines.fewshot.maml import MAML
from experiments.baselines.fewshot.prototypes import PrototypicalNetwork
from experiments.baselines.fewshot.reptile import Reptile

__all__ = ["Conv4", "FewShot", "GradientBased", "ImplicitMAML", "MAML", "PrototypicalNetwork", "Reptile"]
