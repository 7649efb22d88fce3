"""What is injected into a run: the inner solver, the Jacobian regularisation, pictures, predictions, metrics over a test set."""

from jiio_lightning.callbacks.augmented_deq_solver import AugmentedDEQSolver
from jiio_lightning.callbacks.finite import FiniteCheck
from jiio_lightning.callbacks.frechet_distance import FrechetDistance
from jiio_lightning.callbacks.image_grid import ImageGrid
from jiio_lightning.callbacks.jacobian_regularization import JacobianRegularization
from jiio_lightning.callbacks.metrics_file import MetricsFile
from jiio_lightning.callbacks.pca_reference import PCAReference
from jiio_lightning.callbacks.prediction_writer import PredictionWriter
from jiio_lightning.callbacks.resuming import Interruption, SameRun
from jiio_lightning.callbacks.run_defaults import FinalCheckpoint, StepProgress
from jiio_lightning.callbacks.sample_metrics import SampleMetrics
from jiio_lightning.callbacks.signal_pictures import SignalPictures
from jiio_lightning.callbacks.solve_curves import SolveCurves

__all__ = [
    "AugmentedDEQSolver",
    "FinalCheckpoint",
    "FiniteCheck",
    "FrechetDistance",
    "ImageGrid",
    "Interruption",
    "JacobianRegularization",
    "MetricsFile",
    "PCAReference",
    "PredictionWriter",
    "SameRun",
    "SampleMetrics",
    "SignalPictures",
    "SolveCurves",
    "StepProgress",
]
