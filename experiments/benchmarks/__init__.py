"""What the machinery costs, measured."""

from experiments.benchmarks.dual_drift import DualDrift
from experiments.benchmarks.step_seconds import StepSeconds

__all__ = ["DualDrift", "StepSeconds"]
