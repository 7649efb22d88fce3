"""Joint inference and input optimisation in equilibrium networks (Gurumurthy et al., NeurIPS 2021)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jiio_lightning.core import DEQ, Augmented, InnerProblem, Joint, Nested

__version__ = "0.1.0"
__all__ = ["DEQ", "Augmented", "InnerProblem", "Joint", "Nested"]


def __getattr__(name: str) -> Any:
    if name not in __all__:  # what is there comes from core, with torch, which takes longer than `jiio --help`
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.core"), name)
