"""Networks that are equilibria: their cells, heads and injections."""

from jiio_lightning.models.generator import LatentGenerator
from jiio_lightning.models.interface import Generator
from jiio_lightning.models.mdeq import MDEQCell

__all__ = ["Generator", "LatentGenerator", "MDEQCell"]
