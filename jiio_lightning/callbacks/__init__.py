"""What is injected into a run: the inner solver, the Jacobian regularisation, pictures, yardsticks."""

from jiio_lightning.callbacks.augmented_deq_solver import AugmentedDEQSolver
from jiio_lightning.callbacks.image_grid import ImageGrid
from jiio_lightning.callbacks.jacobian_regularization import JacobianRegularization
from jiio_lightning.callbacks.pca_reference import PCAReference

__all__ = ["AugmentedDEQSolver", "ImageGrid", "JacobianRegularization", "PCAReference"]
