"""A fit that becomes non-finite ends, and its checkpoints are those of before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jiio_lightning.callbacks.finite import check_finite
from jiio_lightning.core.inner import SolveError
from jiio_lightning.data.dataset import ImageDataset
from jiio_lightning.tasks import Generation
from tests.conftest import Jiio
from tests.test_cli import error

LAST = Path("runs/tiny/checkpoints/last.ckpt")


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, part: str) -> None:
    """A loss, a gradient or a weight that is NaN from an optimiser step on."""
    whole = Generation.training_step

    def training_step(self, batch, batch_idx):
        loss = whole(self, batch, batch_idx)
        if self.global_step == step - 1 and part == "gradient":
            next(self.parameters()).register_hook(lambda gradient: gradient * float("nan"))
        return loss * float("nan") if self.global_step == step - 1 and part == "loss" else loss

    monkeypatch.setattr(Generation, "training_step", training_step)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_fit_that_becomes_nan_keeps_the_last_finite_checkpoint(jiio: Jiio, capsys, monkeypatch, part):
    """It is looked at before the weights move, and names the step and what to change."""
    spoil(monkeypatch, 4, part)
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 6) == 1
    shown = capsys.readouterr().err
    assert f"error: the {part} is not finite at step 4. Lower model.learning_rate" in shown
    assert "go on with: jiio fit --config tiny.yaml --trainer.max_steps 6 --ckpt_path runs/tiny/checkpoints/last.ckpt" in shown
    saved = torch.load(LAST, weights_only=True)
    assert saved["global_step"] == 2
    check_finite({"a weight": saved["state_dict"].values()}, 2)


def test_between_two_looks_it_is_seen_before_a_checkpoint_is_written(jiio: Jiio, capsys, monkeypatch):
    spoil(monkeypatch, 3, "gradient")
    words = ("--trainer.max_steps", 6, "--trainer.log_every_n_steps", 50, "--trainer.callbacks", "null")
    assert jiio("fit", "--config", "tiny.yaml", *words) == 1
    assert "is not finite" in error(capsys) and torch.load(LAST, weights_only=True)["global_step"] == 2


def test_a_learning_rate_that_is_far_too_large(jiio: Jiio, capsys):
    """Weights of 1e30 are finite, the step after them is not."""
    words = ("--trainer.max_steps", 6, "--trainer.gradient_clip_val", "null", "--model.learning_rate", "1e30")
    assert jiio("fit", "--config", "tiny.yaml", *words, "--model.one_cycle", "false") == 1
    assert "finite" in error(capsys)


@pytest.mark.parametrize("command", ["validate", "test", "predict", "compare", "sample", "learn_start"])
def test_a_sample_that_is_not_finite_is_named(jiio: Jiio, trained, capsys, monkeypatch, command):
    """A mean over it would be NaN, or just another number."""
    whole = ImageDataset.__getitem__

    def getitem(self, draw):
        batch = whole(self, draw)
        batch.image[batch.index == 3] = float("nan")
        return batch

    monkeypatch.setattr(ImageDataset, "__getitem__", getitem)
    read = ("--ckpt_path", trained / "runs/tiny/checkpoints/last.ckpt", "--data.eval_batch_size", 2)
    few = {
        "compare": ("--samples", 2, "--batches", 2),
        "sample": ("--n", 4, "--latents", 8),
        "learn_start": ("--samples", 18),
    }.get(command, ())
    assert jiio(command, "--config", "tiny.yaml", "--name", "other", *read, *few) == 1
    shown, split = error(capsys), {"validate": "validation", "learn_start": "test", "sample": "training"}.get(command, "test")
    assert f"sample 3 of the {split} split has values that are not finite: leave it out" in shown


def test_the_largest_finite_numbers_are_finite():
    huge = torch.full((3,), 3e38)
    check_finite({"a weight": [huge, torch.arange(3)], "none": []}, 1)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(SolveError, match="a weight is not finite at step 7"):
            check_finite({"the loss": [huge], "a weight": [huge, torch.tensor([1.0, bad])]}, 7)
