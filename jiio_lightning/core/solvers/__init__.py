"""Fixed-point methods, the loop that runs them, selection and observers."""

from jiio_lightning.core.solvers.anderson import Anderson
from jiio_lightning.core.solvers.base import FixedPoint, Method, Solution, Update, solve
from jiio_lightning.core.solvers.broyden import Broyden
from jiio_lightning.core.solvers.observers import RandomIterate, Snapshot, Trace
from jiio_lightning.core.solvers.picard import Picard
from jiio_lightning.core.solvers.selection import CostResidualTrade, Last, LowestCost, LowestResidual, Selection

__all__ = [
    "Anderson",
    "Broyden",
    "CostResidualTrade",
    "FixedPoint",
    "Last",
    "LowestCost",
    "LowestResidual",
    "Method",
    "Picard",
    "RandomIterate",
    "Selection",
    "Snapshot",
    "Solution",
    "Trace",
    "Update",
    "solve",
]
