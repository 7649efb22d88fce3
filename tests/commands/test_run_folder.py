"""A run's folder: what a second fit, a dry run, a longer one or another process may do to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jiio_lightning.commands.run_folder import set_aside
from tests.conftest import metrics
from tests.test_cli import error

RUN, LAST = Path("runs/tiny"), Path("runs/tiny/checkpoints/last.ckpt")


@pytest.fixture
def finished(jiio, trained) -> dict[Path, bytes]:
    """A finished run in the working directory; returns its files."""
    shutil.copytree(trained / "runs", "runs")
    return content()


def content() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def test_a_dry_run_leaves_the_trained_weights(jiio, finished, capsys):
    for command in ("fit", "test", "predict"):
        read = ("--ckpt_path", LAST) if command != "fit" else ()
        assert jiio(command, "--config", "tiny.yaml", "--trainer.fast_dev_run", "true", *read) == 0
    assert content() == finished and "checkpoint:" not in capsys.readouterr().out
    assert jiio("compare", "--config", "tiny.yaml", "--ckpt_path", LAST, "--trainer.fast_dev_run", 1) == 1
    assert "jiio compare has no dry run" in error(capsys)


def test_a_finished_run_goes_on_for_longer(jiio, finished, capsys):
    """With the learning rate of a run of that length."""
    before = metrics(RUN)
    assert jiio("fit", "--config", "tiny.yaml", "--ckpt_path", LAST, "--trainer.max_steps", 4) == 0
    saved = torch.load(LAST, weights_only=True)
    assert saved["global_step"] == 4 and saved["lr_schedulers"][0]["total_steps"] == 4
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] != before
    assert metrics(RUN)[: len(before)] == before and [row["step"] for row in metrics(RUN)] == list("011233")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trainer.max_steps", 1), "is of step 2 and the run ends at step 1: raise trainer.max_steps"),
        (("--trainer.max_steps", 4, "--data.batch_size", 6), "had batches of 4 (now 6): a run goes on with the data"),
        (("--trainer.max_steps", 4, "--data.train_limit", 16), "had samples 18 (now 16): a run goes on with the data"),
        (("--trainer.max_steps", 4, "--data.flip", "true"), "had flip False (now True): a run goes on with the data"),
        (("--trainer.max_steps", 4, "--data.value_range", "[0,1]"), "had value_range [-1.0, 1.0] (now [0.0, 1.0])"),
        (("--trainer.limit_train_batches", 0), "trainer.limit_train_batches is 0: nothing would be done: leave it out"),
    ],
)
def test_a_run_that_cannot_go_on_is_left_alone(jiio, finished, capsys, words, message):
    assert jiio("fit", "--config", "tiny.yaml", "--ckpt_path", LAST, *words) == 1
    shown = capsys.readouterr().err
    assert message in shown and "go on with" not in shown
    assert content() == finished


def test_a_second_fit_is_refused_in_one_line(jiio, finished, capsys):
    assert jiio("fit", "--config", "tiny.yaml") == 1
    message = error(capsys)
    assert all(word in message for word in (f"--ckpt_path {LAST}", "--name", "--overwrite")) and len(message.splitlines()) == 1
    (RUN / "checkpoints" / "last.ckpt").rename("elsewhere.ckpt")
    words = ("--config", "tiny.yaml", "--name", "other", "--ckpt_path", "elsewhere.ckpt")
    shutil.copytree(RUN, "runs/other")
    for more in ((), ("--overwrite",)):
        assert jiio("fit", *words, "--trainer.max_steps", 4, *more) == 1, "nor may the checkpoint of another run go on there"
        assert "runs/other holds a run" in error(capsys)


def test_an_overwritten_run_goes_when_the_new_one_has_a_checkpoint(jiio, finished, capsys):
    shutil.copy(LAST, LAST.with_name("epoch=4-step=9.ckpt"))
    finished = content()
    again = ("fit", "--config", "tiny.yaml", "--overwrite", "--trainer.max_steps", 3)
    assert jiio(*again, "--model.net.image_shape", "[1, 16, 16]") == 1
    assert jiio(*again, "--model.learning_rate", "1e30") == 1, "it diverges"
    assert {path: data for path, data in content().items() if path.suffix == ".ckpt"} == {
        path: data for path, data in finished.items() if path.suffix == ".ckpt"
    }
    assert jiio(*again) == 0
    assert sorted(path.name for path in LAST.parent.iterdir()) == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert torch.load(LAST, weights_only=True)["global_step"] == 3
    assert "overwrite: true" not in (RUN / "fit_config.yaml").read_text(), "not by a later run without being told"


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_what_the_overwritten_net_gave_is_set_aside(jiio, finished, capsys):
    """Out of the way, even of a fit that logs nothing; what is not of a run stays, and nothing else is lost."""
    for command in ("test", "predict"):
        assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", LAST) == 0
    (RUN / "samples").symlink_to("nowhere")
    before = {path.relative_to(RUN): data for path, data in ((path, path.read_bytes()) for path in files(RUN))}
    (RUN / "notes.txt").write_text("mine")
    short = ("--overwrite", "--trainer.max_steps", 1, "--trainer.log_every_n_steps", 50, "--trainer.limit_val_batches", 0)
    assert jiio("fit", "--config", "tiny.yaml", *short) == 0
    old = RUN / "replaced_1"
    assert f"what an earlier run had left is in {old}" in capsys.readouterr().err and (old / "samples").is_symlink()
    assert {path for path in files(RUN) if old not in path.parents} == {LAST, RUN / "fit_config.yaml", RUN / "notes.txt"}
    kept = {path: data for path, data in before.items() if path.suffix != ".ckpt"}
    assert {path.relative_to(old): path.read_bytes() for path in files(old)} == kept
    assert jiio("fit", "--config", "tiny.yaml", "--ckpt_path", LAST, "--overwrite", "--trainer.max_steps", 3) == 0
    assert not (RUN / "replaced_2").exists(), "it goes on"


def test_a_folder_of_the_users_own_is_left_alone(jiio):
    """The working directory as the place of a first run."""
    Path("images").mkdir()
    Path("images/mine.png").write_text("mine")
    here = ("--config", "tiny.yaml", "--trainer.default_root_dir", ".", "--overwrite")
    assert jiio("fit", *here) == 0
    assert Path("images/mine.png").read_text() == "mine" and not Path("replaced_1").exists()
    assert jiio("fit", *here) == 0
    assert Path("replaced_1/images/mine.png").read_text() == "mine" and Path("tiny.yaml").is_file()


def test_nothing_to_set_aside(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert set_aside(tmp_path) is None and not (tmp_path / "replaced_1").exists()


def test_two_runs_at_once_the_second_is_refused(jiio, capsys):
    RUN.mkdir(parents=True)
    hold = "import fcntl, time; f = open('runs/tiny/.lock', 'w'); fcntl.lockf(f, 6); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        status = jiio("fit", "--config", "tiny.yaml")
        other.kill()
    assert status == 1 and "another run is training in runs/tiny: wait for its end" in error(capsys)
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 1) == 0, "a dead process does not hold it"
    assert not (RUN / ".lock").exists()
