"""Section 3 of the paper in plain torch: no Lightning, no data, no files."""

from jiio_lightning.core.deq import DEQ
from jiio_lightning.core.equilibrium import Neumann
from jiio_lightning.core.inner import InnerSolution, InnerSolver, SolveError
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.nested import Nested
from jiio_lightning.core.outer import DualReuse, FixedInput, FullKKT
from jiio_lightning.core.problem import InnerProblem
from jiio_lightning.core.projections import Box, BoxedBall, L2Ball
from jiio_lightning.core.state import Augmented
from jiio_lightning.core.sweeps import StepSizes, Sweeps
from jiio_lightning.core.weights import cached_weights

__all__ = [
    "DEQ",
    "Augmented",
    "Box",
    "BoxedBall",
    "DualReuse",
    "FixedInput",
    "FullKKT",
    "InnerProblem",
    "InnerSolution",
    "InnerSolver",
    "Joint",
    "L2Ball",
    "Nested",
    "Neumann",
    "SolveError",
    "StepSizes",
    "Sweeps",
    "cached_weights",
]
