"""Attacks on equilibrium classifiers: what they may do, how they search, and how their outcome is judged (Sec. 4.3, B.2)."""

from jiio_lightning.attacks.autoattack import AutoAttack, ImplicitForward
from jiio_lightning.attacks.base import Attack, Attacked, NoAttack
from jiio_lightning.attacks.intermediate import IntermediateStates
from jiio_lightning.attacks.joint import SolverAttack
from jiio_lightning.attacks.named import CLEAN, JIIO, NAMED
from jiio_lightning.attacks.pgd import PGD
from jiio_lightning.attacks.target import Target, Verdict
from jiio_lightning.attacks.threat import ThreatModel

__all__ = [
    "CLEAN",
    "JIIO",
    "NAMED",
    "PGD",
    "Attack",
    "Attacked",
    "AutoAttack",
    "ImplicitForward",
    "IntermediateStates",
    "NoAttack",
    "SolverAttack",
    "Target",
    "ThreatModel",
    "Verdict",
]
