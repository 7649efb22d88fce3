"""Joint inference and input optimisation in equilibrium networks (Gurumurthy et al., NeurIPS 2021)."""

from jiio_lightning.core import DEQ, Augmented, InnerProblem, Joint, Nested

__version__ = "0.1.0"
__all__ = ["DEQ", "Augmented", "InnerProblem", "Joint", "Nested"]
