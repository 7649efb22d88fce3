"""Data sets, prepared once into memory-mapped arrays, and the LightningDataModules that read them.

They are imported when one is asked for: `jiio data list` answers without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jiio_lightning.data.sets import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.sets"), name)
