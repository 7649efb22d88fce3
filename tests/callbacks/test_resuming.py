"""A run that is ended in any place and goes on leaves the weights and the curve of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from jiio_lightning.callbacks import AugmentedDEQSolver, ImageGrid
from jiio_lightning.callbacks.metrics_file import MetricsFile
from jiio_lightning.callbacks.resuming import SameRun
from jiio_lightning.core import Joint
from jiio_lightning.data import Digits
from jiio_lightning.models import LatentGenerator
from jiio_lightning.tasks import Generation
from tests.conftest import Jiio

RUN = ("fit", "--config", "tiny.yaml", "--trainer.max_steps", 11, "--trainer.val_check_interval", 3)
LAST = Path("runs/tiny/checkpoints/last.ckpt")


class Disk(RuntimeError):
    """What goes wrong."""


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, step: int, what) -> None:
    """Do something, once, in a method of a class when the run is at an optimiser step."""
    whole, left = getattr(owner, name), [1]

    def method(self, *args):
        trainer = self.trainer if isinstance(self, torch.nn.Module) else args[0]
        if left and trainer.global_step == step and not trainer.sanity_checking:
            left.clear()
            what()
        return whole(self, *args)

    monkeypatch.setattr(owner, name, method)


def fail() -> None:
    raise Disk("no space")


def kill(number: int):
    return lambda: os.kill(os.getpid(), number)


def test_a_run_that_is_interrupted_again_and_again_is_the_run(jiio: Jiio, capsys):
    """Weights and metrics.csv, bit by bit: failures and signals within a step, at its end and within a validation."""
    assert jiio(*RUN, "--name", "whole") == 0
    ends = [
        (Generation, "training_step", 1, fail, Disk),  # before the first checkpoint
        (Generation, "training_step", 4, kill(signal.SIGTERM), 143),
        (Generation, "validation_step", 6, fail, Disk),
        (ImageGrid, "on_validation_batch_end", 6, fail, Disk),  # while that validation is done again
        (Generation, "on_train_batch_end", 7, kill(signal.SIGINT), 130),
        (Generation, "validation_step", 9, kill(signal.SIGTERM), 143),
        (Generation, "training_step", 10, fail, Disk),
    ]
    for owner, name, step, what, status in ends:
        with pytest.MonkeyPatch.context() as patch:
            once(patch, owner, name, step, what)
            with nullcontext() if isinstance(status, int) else pytest.raises(status):
                assert jiio(*RUN, *(("--ckpt_path", LAST) if LAST.is_file() else ())) == status
    assert jiio(*RUN, "--ckpt_path", LAST) == 0
    assert "go on with: jiio fit --config tiny.yaml" in capsys.readouterr().err
    whole, last = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "tiny"))
    assert all(tensor.equal(last["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    assert Path("runs/tiny/metrics.csv").read_text() == Path("runs/whole/metrics.csv").read_text()


def test_a_run_that_goes_on_beside_the_old_one_has_the_whole_curve(jiio: Jiio):
    assert jiio(*RUN, "--trainer.max_steps", 3) == 0
    rows = Path("runs/tiny/metrics.csv").read_text()
    words = ("--model.one_cycle", "false", "--model.learning_rate", "1e-5", "--trainer.max_steps", 4)
    assert jiio(*RUN, "--name", "beside", "--ckpt_path", LAST, *words) == 0
    assert Path("runs/beside/metrics.csv").read_text().startswith(rows)
    group = torch.load("runs/beside/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == 1e-5, "a checkpoint has the state, the run file has the learning rate"
    assert jiio(*RUN, "--name", "third", "--ckpt_path", "runs/beside/checkpoints/last.ckpt") == 1, "it has no schedule"


@pytest.mark.parametrize(("command", "step"), [("test", "test_step"), ("predict", "predict_step")])
def test_a_command_that_is_terminated_says_so(jiio: Jiio, checkpoint, monkeypatch, command, step):
    """``test && publish`` stops there."""
    once(monkeypatch, Generation, step, 0, kill(signal.SIGTERM))
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--trainer.callbacks", "null") == 143


@pytest.mark.slow
def test_processes_that_are_ended_go_on(jiio: Jiio):
    """By kill, which asks nobody; by SIGTERM and Ctrl-C, after which ``fit && test`` stops."""
    rows, long = Path("runs/tiny/metrics.csv"), ("--trainer.max_steps", 40)
    command = [sys.executable, "-m", "jiio_lightning", *map(str, (*RUN, *long))]
    for number, status, step in ((signal.SIGKILL, -9, 8), (signal.SIGTERM, 143, 17), (signal.SIGINT, 130, 26)):
        resumed = ["--ckpt_path", str(LAST)] if LAST.is_file() else []
        with subprocess.Popen([*command, *resumed], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            while not (rows.is_file() and f"\n{step // 4},{step}," in rows.read_text()):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(60) == status
        assert torch.load(LAST, weights_only=True)["global_step"] < 40
    assert jiio(*RUN, *long, "--ckpt_path", LAST) == 0
    assert jiio(*RUN, *long, "--name", "whole") == 0
    whole, last = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "tiny"))
    assert all(tensor.equal(last["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    assert rows.read_text() == Path("runs/whole/metrics.csv").read_text()


class OwnGroups(Generation):
    """Without a schedule, whatever ``one_cycle`` says."""

    def configure_optimizers(self):
        groups = [
            {"params": [*self.net.cell.parameters()], "lr": 10 * self.learning_rate, "weight_decay": 0.1},
            {"params": [*self.net.head.parameters()]},
        ]
        return torch.optim.Adam(groups, lr=self.learning_rate)


def test_an_optimiser_of_ones_own_goes_on(tmp_path):
    data = Digits(root=str(tmp_path), batch_size=4, train_limit=16, val_limit=4, test_limit=4)

    def fit(steps: int, checkpoint: str | None = None, rate: float = 1e-3) -> Trainer:
        torch.manual_seed(0)
        solver = AugmentedDEQSolver(Joint(max_steps=8), Joint(max_steps=8), trust_tol=10.0)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(accelerator="cpu", max_steps=steps, limit_val_batches=0, callbacks=[SameRun(), solver], **quiet)
        trainer.fit(OwnGroups(LatentGenerator(2, (4,), (1, 8, 8)), learning_rate=rate), data, ckpt_path=checkpoint)
        return trainer

    whole, checkpoint = fit(5), str(tmp_path / "two.ckpt")
    fit(2).save_checkpoint(checkpoint)
    resumed = fit(5, checkpoint)
    assert [group["lr"] for group in resumed.optimizers[0].param_groups] == [1e-2, 1e-3]
    for one, other in zip(whole.lightning_module.parameters(), resumed.lightning_module.parameters(), strict=True):
        assert one.equal(other)
    slower = fit(5, checkpoint, rate=1e-4).optimizers[0].param_groups
    assert [group["lr"] for group in slower] == [1e-3, 1e-4], "of the run that goes on, not of the checkpoint"


def test_a_test_beside_a_fit_of_the_run_leaves_its_rows_whole(tmp_path):
    fit, test = MetricsFile(tmp_path), MetricsFile(tmp_path)
    for logger, step, metrics in (
        (fit, 9, {"train/cost": 5.0}),
        (test, 0, {"test/error": 0.1}),
        (fit, 19, {"train/cost": 4.0}),
        (fit, 19, {"val/error": 0.2}),
        (test, 0, {"test/error": 0.3}),
    ):
        logger.log_metrics(metrics, step)
        logger.save()
    rows = fit.experiment.rows()
    assert [{name: value for name, value in row.items() if value and name != "step"} for row in rows] == [
        {"train/cost": "5.0"},
        {"test/error": "0.1"},
        {"train/cost": "4.0"},
        {"val/error": "0.2"},
        {"test/error": "0.3"},
    ]
