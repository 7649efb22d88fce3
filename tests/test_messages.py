"""What a user did wrong: one line with the option's path and the reason, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from jiio_lightning.messages import advised, expected, short
from tests.conftest import REPO
from tests.test_cli import error


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--data.batch_size=0", "data.batch_size: 0 does not conform to restriction v>0"),
        ("--data.num_workers=2147483648", "data.num_workers: 2147483648 does not conform to restriction v>=0 and v<=256"),
        ("--model.loss_scale=-0.5", "model.loss_scale: -0.5 does not conform to restriction v>0"),
        ("--model.learning_rate=abc", "model.learning_rate: Expected a float. Got value: abc"),
        ("--model.net.latent=0", "model.net.latent: 0 does not conform to restriction v>0"),
        ("--solver.train.step_sizes.z=0", "solver.train.step_sizes.z: 0 does not conform to restriction v>0"),
        ("--solver.test=Joinnt", "solver.test: there is no class Joinnt"),
        ("--jacobian.coefficient=nan", "jacobian.coefficient: nan does not conform to restriction v>=0"),
        ("--jacobian=0", "jacobian: 0 is neither settings nor a file of them"),
        ("--trainer=false", "trainer: false is neither settings nor a file of them"),
    ],
)
def test_a_value_that_an_option_cannot_have(jiio, capsys, option, wanted):
    assert jiio("fit", "--config", "tiny.yaml", option) == 2
    assert error(capsys) == wanted and not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--solver.test.tol=.nan", "solver.test.init_args.tol: nan is not a finite number"),
        ("--model.learning_rate=1e400", "model.init_args.learning_rate: inf is not a finite number"),
        ("--solver.test.max_steps=0", "a solve needs max_steps >= 1 and tol >= 0, got max_steps=0 and tol=0.0"),
        ("--model.net.channels=[]", "0 scales do not fit maps of (8, 8): each scale halves the one before"),
        ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches is 0: a step has at least one batch"),
        ("--trainer.max_steps=0", "trainer.max_steps is 0: a run has at least one step, or -1 for no end"),
        ("--trainer.val_check_interval=0", "trainer.val_check_interval is 0: there is at least one step between validations"),
        ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val is -1: a norm is not negative"),
        ("--trainer.overfit_batches=2", "trainer.overfit_batches is 2: batches are drawn whole: set data.train_limit instead"),
        ("--trainer.inference_mode=true", "trainer.inference_mode is True: the inner solve needs gradients in evaluation too"),
        ("--trainer.default_root_dir=tiny.yaml/x", "nothing can be written in tiny.yaml/x: "),
    ],
)
def test_a_setting_that_no_run_can_have(jiio, capsys, option, wanted):
    """The sentence of a constructor alone, of the 700 characters around it."""
    assert jiio("fit", "--config", "tiny.yaml", option) == 1
    message = error(capsys)
    assert wanted in message and len(message) < 160 and len(message.splitlines()) == 1 and not Path("runs").exists()


@pytest.mark.parametrize("value", [0, False, ".nan", {"coefficient": float("nan")}])
def test_a_run_file_whose_jacobian_is_no_group_of_settings(jiio, capsys, value):
    config = yaml.safe_load(Path("tiny.yaml").read_text()) | {"jacobian": value}
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    assert jiio("fit", "--config", "tiny.yaml") in (1, 2)
    message = error(capsys)
    assert message.startswith("jacobian") and len(message.splitlines()) == 1 and " at 0x" not in message


def test_an_attack_that_there_is_not_is_refused_before_the_training(jiio, capsys):
    assert jiio("fit", "--config", REPO / "tasks/digits_adversarial.yaml", "--model.attacks", '["pdg"]') == 1
    assert error(capsys).startswith("there is no attack 'pdg': choose from clean, pgd")


def test_more_ways_than_there_are_digits(jiio, capsys):
    assert jiio("fit", "--config", REPO / "tasks/digits_meta.yaml", "--data.ways", 6) == 1
    assert error(capsys) == "6 ways: there are 5 digits to train and 5 to test; set ways and train_ways to 5 at most."


def test_a_metric_that_early_stopping_does_not_find(jiio, capsys):
    stopping = ("--trainer.callbacks+=pytorch_lightning.callbacks.EarlyStopping", "--trainer.callbacks.monitor=nope")
    assert jiio("fit", "--config", "tiny.yaml", *stopping) == 1
    message = error(capsys)
    assert message.startswith("Early stopping conditioned on metric `nope`") and len(message.splitlines()) == 1


def test_a_size_of_nothing_is_not_the_fault_of_an_image(jiio, capsys):
    assert jiio("data", "prepare", "images", "--source", ".", "--size", 0) == 2
    assert error(capsys) == "size: 0 does not conform to restriction v>0"


def test_what_a_user_meets_is_told_from_a_fault_of_the_program():
    own = "Function 'LogBackward0' returned nan values in its 0th output.", "CUDA out of memory. Tried to allocate 2 GiB"
    assert all(expected(RuntimeError(text)) for text in own)
    assert expected(PermissionError(13, "Permission denied", "runs")) and expected(yaml.YAMLError())
    assert not expected(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) and not expected(KeyError("z"))


def test_a_message_has_no_addresses_of_memory():
    assert short("cannot use <Thing object at 0x7f3a12b4c5d0>") == "cannot use <Thing object>"
    assert advised(IsADirectoryError(21, "Is a directory", "runs")) == "runs: Is a directory"


@pytest.mark.parametrize("command", ["fit", "test", "compare"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(jiio, capsys, checkpoint, monkeypatch, command):
    real = os.access  # as for a user who is not root
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 1
    assert error(capsys).startswith("nothing can be written in runs/tiny: there is no permission to write in")
