"""Lightning's trainer with the commands that it lacks."""

from __future__ import annotations

import torch
from jsonargparse import Namespace
from pytorch_lightning import Trainer

from jiio_lightning.callbacks.augmented_deq_solver import check_precision
from jiio_lightning.commands.attack import attack
from jiio_lightning.commands.compare import compare
from jiio_lightning.commands.learn_start import learn_start
from jiio_lightning.commands.sample import sample

LIMITS = {
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
"""How much Lightning's own commands see of their split."""


def check_options(given: Namespace, command: str) -> None:
    """Refuse, by a ValueError, options of the trainer that a command does not see, or that would end it inside of Lightning."""
    wrong = {
        "inference_mode": given.inference_mode and "the inner solve needs gradients in evaluation too: leave it false",
        "overfit_batches": given.overfit_batches and "batches are drawn whole: set data.train_limit instead",
        "max_steps": given.max_steps == 0 and "a run has at least one step, or -1 for no end",
        "accumulate_grad_batches": given.accumulate_grad_batches < 1 and "a step has at least one batch",
        "val_check_interval": given.val_check_interval == 0 and "there is at least one step between validations",
        "gradient_clip_val": (given.gradient_clip_val or 0) < 0 and "a norm is not negative",
    }
    if command in LIMITS:
        wrong[LIMITS[command]] = given[LIMITS[command]] == 0 and "nothing would be done: leave it out"
    else:
        wrong["limit_test_batches"] = given.limit_test_batches is not None and f"jiio {command} does not see it: leave it out"
    for name, why in wrong.items():
        if why:
            raise ValueError(f"trainer.{name} is {given[name]}: {why}")
    check_precision(given.precision, gpu=torch.cuda.is_available() and given.accelerator != "cpu")


class JIIOTrainer(Trainer):
    """A Trainer that also learns starts, compares solvers, attacks classifiers and samples generators.

    All of its options are Lightning's.
    """

    learn_start = learn_start
    compare = compare
    attack = attack
    sample = sample
