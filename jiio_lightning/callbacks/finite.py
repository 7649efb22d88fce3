"""A fit that has become non-finite ends; nothing it would save is worth having."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm

from jiio_lightning.core.inner import SolveError

ADVICE = (
    "Lower model.learning_rate, set trainer.gradient_clip_val (1.0 is usual), or look for NaN in the data; "
    "all checkpoints of the run are finite"
)


class FiniteCheck(Callback):
    """Looks at loss, gradient and weights in every step that is logged, and at the data of each evaluation.

    Not in every step: on a GPU each look waits for all that has been asked of it. What comes between two looks is seen before a
    checkpoint is written (:func:`check_finite`).

    Raises:
        SolveError: naming the step at which it was noticed and what to change.
        ValueError: naming a sample of an evaluation with a value that is not finite.
    """

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        check_batch(batch, "validation")

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        check_batch(batch, "test")

    on_predict_batch_start = on_test_batch_start

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self.loss = loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer) -> None:
        if not logged(trainer, trainer.global_step + 1):
            return
        gradient = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        # a loss scale that is too large makes infinite gradients, whose step is then left out
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        check_finite({"the loss": [self.loss], "the gradient": [] if scaled else gradient}, trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if logged(trainer, trainer.global_step):
            check_finite({"a weight": pl_module.parameters()}, trainer.global_step)


def check_batch(batch: Any, split: str) -> None:
    """Refuse, by a ValueError, samples of a tuple of tensors with a value that is not finite: a mean over them says nothing."""
    for part in batch if isinstance(batch, tuple) else ():
        if isinstance(part, Tensor) and part.is_floating_point() and part.ndim and len(part):
            spoilt = (~part.isfinite()).reshape(len(part), -1).any(dim=1).nonzero()
            if len(spoilt):
                row, index = int(spoilt[0]), getattr(batch, "index", None)
                named = int(index[row]) if isinstance(index, Tensor) and len(index) == len(part) else row
                raise ValueError(f"sample {named} of the {split} split has values that are not finite: leave it out")


def check_finite(parts: Mapping[str, Iterable[Tensor]], step: int) -> None:
    """Raise a SolveError that names the first part with a value that is not finite, at an optimiser step."""
    held = {name: [tensor for tensor in tensors if tensor.is_floating_point()] for name, tensors in parts.items()}
    # the largest absolute value, which NaN passes through: a sum of squares of finite weights may overflow
    largest = {name: get_total_norm(tensors, float("inf")).detach().cpu() for name, tensors in held.items() if tensors}
    for name, value in largest.items():
        if not bool(torch.isfinite(value)):
            raise SolveError(f"{name} is not finite at step {step}. {ADVICE}")


def logged(trainer: Trainer, step: int) -> bool:
    """Whether the metrics of an optimiser step, the first one is 1, are written down: the host waits for the device there."""
    every = trainer.log_every_n_steps
    return bool(every) and step % every == 0
