"""The command end to end on a tiny run: what it writes, and one clear line for each mistake."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from jiio_lightning.callbacks import StepProgress
from jiio_lightning.data import Digits
from jiio_lightning.data.dataset import ImageDataset
from tests.conftest import REPO, TINY, metrics, solver_of
from tests.data.conftest import picture, write_files


def error(capsys) -> str:
    """What the user reads on stderr after ``error:``."""
    text = capsys.readouterr().err
    assert "Traceback" not in text and text.count("error: ") == 1, text
    return text.partition("error: ")[2].strip()


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


# what a run leaves behind


def test_fit_writes_logs_pictures_checkpoints_and_its_configuration(trained):
    run = trained / "runs" / "tiny"
    rows = metrics(run)
    names = {"cost", "feasible", "finite", "jacobian", "residual_z", "residual_mu", "residual_x", "steps"}
    assert {f"train/{name}" for name in names} <= set(rows[0])
    assert {"val/error", "val/psnr", "val/resolve_residual", "val/steps"} <= set(rows[0])
    assert [row["train/steps"] for row in rows if row["train/steps"]] == ["25.0", "25.0"]
    trusted = [float(row["train/trusted"]) for row in rows if row["train/trusted"]]
    assert len(trusted) == 2 and min(trusted) >= 0.5, "else these tests train nothing"
    assert [row["val/steps"] for row in rows if row["val/steps"]] == ["8.0"]
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert {path.name for path in run.iterdir()} == {"checkpoints", "fit_config.yaml", "images", "metrics.csv"}
    assert {path.name for path in trained.iterdir()} == {"runs", "tiny.yaml"}
    assert Image.open(run / "images" / "val_0000002.png").size == (4 * 10 + 2, 2 * 10 + 2)


def test_the_saved_configuration_is_a_run_file(built, trained):
    cli = built("--config", trained / "runs" / "tiny" / "fit_config.yaml")
    assert cli.model.net.latent == 4 and solver_of(cli).test.max_steps == 8 and cli.folder == Path("runs/tiny")


def test_the_end_of_a_fit_names_the_checkpoint(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 1) == 0
    out, err = capsys.readouterr()
    assert "checkpoint: runs/tiny/checkpoints/last.ckpt" in out
    assert "litlogger" not in out + err


def test_the_last_checkpoint_is_the_end_of_the_run(jiio):
    """Also where the last validation was before it."""
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 3) == 0
    assert load(Path("runs/tiny/checkpoints/last.ckpt"))["global_step"] == 3


def test_the_learning_rate_is_annealed_step_by_step(checkpoint):
    """Over the 2 steps of the run, which are half of an epoch."""
    (schedule,), (optimiser,) = (load(checkpoint)[part] for part in ("lr_schedulers", "optimizer_states"))
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    wanted = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=2)
    for _ in range(2):
        adam.step()
        wanted.step()
    assert schedule["last_epoch"] == 2 and schedule["total_steps"] == 2
    assert optimiser["param_groups"][0]["lr"] == pytest.approx(wanted.get_last_lr()[0], rel=1e-6)


def test_one_seed_gives_one_loss_curve(jiio, trained):
    assert jiio("fit", "--config", "tiny.yaml") == 0
    assert metrics(Path("runs/tiny")) == metrics(trained / "runs/tiny")
    one, two = (load(root / "runs/tiny/checkpoints/last.ckpt")["state_dict"] for root in (Path(), trained))
    assert all(tensor.equal(two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("command, stage", [("validate", "val"), ("test", "test")])
def test_evaluation(jiio, checkpoint, command, stage):
    """The budget is the command's, whatever the checkpoint was trained with."""
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--solver.test.max_steps", 3) == 0
    (row,) = metrics(Path("runs/tiny"))
    assert row[f"{stage}/steps"] == "3.0"
    assert float(row[f"{stage}/resolve_residual"]) < 1e-4, "z is re-solved"
    if stage == "test":
        assert Path("runs/tiny/images/test.png").is_file()
        ratio = float(row["test/error"]) / float(row["test/pca_error"])
        assert float(row["test/error_over_pca"]) == pytest.approx(ratio, rel=1e-4)


def test_another_solver_on_the_same_checkpoint(jiio, checkpoint):
    nested = REPO / "conf/solver/nested.yaml"
    words = ("--config", "tiny.yaml", "--ckpt_path", checkpoint, "--solver", nested, "--solver.test.max_steps", 2)
    assert jiio("test", *words, "--data.test_limit", 4) == 0
    assert metrics(Path("runs/tiny"))[0]["test/steps"] == "2.0"


def test_predict(jiio, checkpoint, capsys):
    assert jiio("predict", "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 0
    arrays = np.load("runs/tiny/predictions/predictions.npz")
    shapes = {name: arrays[name].shape for name in arrays}
    assert shapes == {"latent": (20, 4), "image": (20, 1, 8, 8), "error": (20,), "index": (20,)}
    assert arrays["index"].tolist() == list(range(20)) and abs(arrays["image"]).max() <= 1
    assert Image.open("runs/tiny/predictions/images.png").size == (16 * 34 + 2, 2 * 34 + 2)


def test_predictions_are_those_of_the_test(jiio, checkpoint):
    for command in ("test", "predict"):
        assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 0
    error = np.load("runs/tiny/predictions/predictions.npz")["error"].mean()
    assert float(metrics(Path("runs/tiny"))[0]["test/error"]) == pytest.approx(error, rel=1e-5)


def test_tensorboard_takes_the_pictures(jiio):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert jiio("fit", "--config", "tiny.yaml", "--trainer.logger", REPO / "conf/logger/tensorboard.yaml") == 0
    events = EventAccumulator("runs/tiny/tensorboard/version_0").Reload()
    assert "images/val" in events.Tags()["images"] and "train/cost" in events.Tags()["scalars"]


# where a run writes


def test_a_run_has_a_name_and_a_folder_of_that_name(built, tmp_path):
    """--name, else the stem of the first --config; the folder may be any other."""
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 7}\n")
    two = ("--config", "tiny.yaml", "--config", "more.yaml")
    assert built(*two).trainer.default_root_dir == "runs/tiny"
    assert built(*two, "--name", "other").trainer.default_root_dir == "runs/other"
    moved = built(*two, "--name", "other", "--trainer.default_root_dir", "elsewhere")
    assert moved.trainer.default_root_dir == moved.trainer.logger.save_dir == "elsewhere"
    assert moved.trainer.checkpoint_callback.dirpath == str(tmp_path / "elsewhere/checkpoints")


def test_a_run_without_a_file_is_called_like_its_task(built, trained):
    saved = yaml.safe_load((trained / "runs/tiny/fit_config.yaml").read_text())
    words = [f"--{part}={json.dumps(saved[part])}" for part in ("model", "data", "solver")]
    assert built(*words).folder == Path("runs/generation")


def test_one_option_moves_everything(jiio):
    """Checkpoints, metrics, pictures, predictions, the configuration, and what further loggers write."""
    there = ("--config", "tiny.yaml", "--trainer.default_root_dir", "there")
    assert jiio("fit", *there) == 0
    for command in ("test", "predict"):
        assert jiio(command, *there, "--ckpt_path", "there/checkpoints/last.ckpt") == 0
    configs = {f"{stage}_config.yaml" for stage in ("fit", "test", "predict")}
    assert {path.name for path in Path("there").iterdir()} == {"checkpoints", "images", "metrics.csv", "predictions"} | configs
    assert (
        jiio("fit", *there, "--overwrite", "--trainer.max_steps", 1, "--trainer.logger", REPO / "conf/logger/tensorboard.yaml")
        == 0
    )
    assert {path.name for path in Path().iterdir()} == {"there", "tiny.yaml"}
    written = {"checkpoints", "fit_config.yaml", "replaced_1", "tensorboard"}
    assert {path.name for path in Path("there").iterdir()} == written


def test_a_run_without_a_logger(jiio):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.logger", "false") == 0
    assert {path.name for path in Path("runs/tiny").iterdir()} == {"checkpoints", "fit_config.yaml", "images"}


def test_a_run_without_checkpoints(jiio):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.enable_checkpointing", "false") == 0
    assert not Path("runs/tiny/checkpoints").exists()


def test_a_logger_and_a_checkpoint_of_your_own(jiio):
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    config["trainer"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "name": "own"}}
    config["trainer"]["callbacks"] = [{"class_path": "FinalCheckpoint", "init_args": {"dirpath": "weights", "save_last": True}}]
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    assert jiio("fit", "--config", "tiny.yaml") == 0
    assert Path("logs/own/version_0/metrics.csv").is_file() and Path("weights/last.ckpt").is_file()
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["fit_config.yaml"]


def test_further_checkpoints_come_beside_the_last(built):
    more = ("--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1")
    last, every = built("--config", "tiny.yaml", *more).trainer.checkpoint_callbacks
    assert last.save_last and last.save_on_exception and every._every_n_train_steps == 1


def test_a_resumed_fit_and_a_test_add_their_rows(jiio):
    fit, weights = ("fit", "--config", "tiny.yaml", "--model.one_cycle", "false"), "runs/tiny/checkpoints/last.ckpt"
    assert jiio(*fit) == 0
    first = metrics(Path("runs/tiny"))
    assert jiio(*fit, "--trainer.max_steps", 4, "--ckpt_path", weights) == 0
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", weights) == 0
    rows = metrics(Path("runs/tiny"))
    assert [{name: row[name] for name in first[0]} for row in rows[: len(first)]] == first
    assert len([row for row in rows if row["train/cost"]]) == 4
    assert [bool(row["test/error"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert not list(Path("runs/tiny").glob("replaced_*"))


def test_a_fit_from_scratch_sets_the_old_metrics_aside(jiio, capsys):
    for steps in (1, 2, 3):
        assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", steps, "--overwrite") == 0
    files = (f"runs/tiny/{which}metrics.csv" for which in ("replaced_1/", "replaced_2/", ""))
    assert [Path(file).read_text().count("\n") - 1 for file in files] == [1, 3, 4], "a row a step, one for each validation"
    assert "deleted" not in capsys.readouterr().err, "Lightning's warning"
    shutil.rmtree("runs/tiny/replaced_1")
    second = Path("runs/tiny/replaced_2/metrics.csv").read_text()
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 1, "--overwrite") == 0
    assert Path("runs/tiny/replaced_1/metrics.csv").is_file() and Path("runs/tiny/replaced_2/metrics.csv").read_text() == second


@pytest.mark.parametrize(("command", "limit"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_a_command_without_samples_is_refused(jiio, checkpoint, capsys, command, limit):
    read = ("--config", "tiny.yaml", "--ckpt_path", checkpoint)
    assert jiio(command, *read, f"--trainer.limit_{limit}_batches", 0) == 1
    assert f"trainer.limit_{limit}_batches is 0: nothing would be done" in error(capsys)
    assert jiio(command, *read, "--trainer.limit_train_batches", 0) == 0, "of another split"


# mistakes: one clear line, no traceback


def test_no_solver(jiio, capsys):
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    del config["solver"]
    Path("tiny.yaml").write_text(yaml.safe_dump(config))
    assert jiio("fit", "--config", "tiny.yaml") == 1
    message = error(capsys)
    assert "There is no inner solver: add `solver:" in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "option, path",
    [
        ("--solver.test.init_args.max_stepz=4", "solver.test.max_stepz: jiio_lightning.core.Joint has no option"),
        ("--model.init_args.net.init_args.latend=4", "model.net.latend: jiio_lightning.models.LatentGenerator has no option"),
        ("--trainer.max_stepz=4", "trainer.max_stepz"),
        ("--jacobian.coeficient=4", "jacobian.coeficient"),
        ("--data.batchsize=4", "data.batchsize: jiio_lightning.data.Digits has no option"),
    ],
)
def test_a_misspelt_key_is_named_with_its_path(jiio, capsys, option, path):
    assert jiio("fit", "--config", "tiny.yaml", option) == 2
    message = error(capsys)
    assert path in message and len(message.splitlines()) == 1


def test_a_misspelt_key_in_a_file(jiio, capsys):
    Path("tiny.yaml").write_text(Path("tiny.yaml").read_text().replace("coefficient:", "coeficient:"))
    assert jiio("fit", "--config", "tiny.yaml") == 2
    assert "jacobian.coeficient" in error(capsys)


def test_a_fragment_that_is_not_there(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--solver", "conf/solver/nesed.yaml") == 1
    assert "there is no conf/solver/nesed.yaml, which --solver names" in error(capsys)


def test_a_baseline_needs_the_checkout(jiio, capsys, monkeypatch):
    """Outside of it there are no experiments; the answer is the whole command that would do."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "experiments").is_dir()])
    path = REPO / "experiments/runs/mnist_vae.yaml"
    assert jiio("fit", "--config", path) == 2
    message = error(capsys)
    assert f"`python -m experiments fit --config {path}`" in message and len(message.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("trainer", ["gpu", "4gpu_ddp"])
def test_a_gpu_that_is_not_there(jiio, capsys, trainer):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer", REPO / f"conf/trainer/{trainer}.yaml") == 1
    message = error(capsys)
    assert "This machine has 0 GPUs: choose trainer.accelerator and trainer.devices" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "compare"])
def test_a_checkpoint_that_is_missing(jiio, capsys, command):
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", "nope.ckpt") == 1
    assert error(capsys).startswith("there is no checkpoint nope.ckpt: train one with `jiio fit`")


@pytest.mark.parametrize("command", ["test", "compare"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_checkpoint_that_is_broken(jiio, capsys, checkpoint, command, content):
    whole = checkpoint.read_bytes()
    Path("bad.ckpt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", "bad.ckpt") == 1
    assert error(capsys).startswith("bad.ckpt cannot be read as a checkpoint")


def test_a_file_of_tensors_is_no_checkpoint(jiio, capsys):
    torch.save({"weights": torch.zeros(3)}, "bad.ckpt")
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", "bad.ckpt") == 1
    assert error(capsys) == "bad.ckpt is not a checkpoint of Lightning: it has no state_dict"


@pytest.mark.parametrize("command", ["test", "compare"])
def test_a_checkpoint_of_another_net(jiio, capsys, checkpoint, command):
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--model.net.latent", 3) == 1
    message = error(capsys)
    assert "the checkpoint is of another net" in message
    assert "net.inject.weight, (640, 4) in the checkpoint and (640, 3) here" in message


def test_a_set_without_test_images_has_nothing_to_test(jiio, capsys):
    """A fit may do without validation; what measures may not do without samples."""
    write_files(Path("pictures"), {f"{number}.png": picture(number, 8, 8) for number in range(12)})
    split = {"size": 8, "train": 12, "val": 0}
    options = (f"--{name}={value}" for name, value in split.items())
    assert jiio("data", "prepare", "images", "--source", "pictures", "--root", "sets", *options) == 0
    config = yaml.safe_load(TINY)
    config["model"]["init_args"]["net"]["init_args"]["image_shape"] = [3, 8, 8]
    data = {"root": "sets", "batch_size": 4, **split}
    config["data"] = {"class_path": "jiio_lightning.data.ImageFolder", "init_args": data}
    Path("all.yaml").write_text(yaml.safe_dump(config))
    assert jiio("fit", "--config", "all.yaml") == 0
    for command in ("test", "predict", "validate"):
        assert jiio(command, "--config", "all.yaml", "--ckpt_path", "runs/all/checkpoints/last.ckpt") == 1
        part = "val" if command == "validate" else "test"
        assert error(capsys) == f"images has no {part} samples: there is nothing to measure. Prepare it with some."


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_mnist_files_that_cannot_be_used(jiio, capsys, monkeypatch, tmp_path, fault):
    monkeypatch.setenv("JIIO_DATA", str(tmp_path / "empty"))
    source = tmp_path / "source"
    source.mkdir()
    if fault == "truncated":
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60000, 28, 28)
        (source / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(100)))
    assert jiio("fit", "--config", REPO / "tasks/mnist.yaml", "--data.source", source) == 1
    message = error(capsys)
    assert "train-images-idx3-ubyte" in message and len(message.splitlines()) == 1
    assert not Path("runs/mnist/checkpoints").exists(), "before work starts"


def test_images_of_another_size(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--model.net.image_shape", "[1, 16, 16]") == 1
    assert "the data has images of (1, 8, 8) and the net is for (1, 16, 16)" in error(capsys)


def test_a_schedule_without_an_end(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", -1) == 1
    assert "one_cycle needs the length of the run" in error(capsys)


def test_a_nan_in_the_data_stops_the_run_with_its_weights(jiio, capsys, monkeypatch):
    """The second batch has one bad pixel: the checkpoint holds the finite weights of the first step."""
    whole = ImageDataset.__getitem__

    def spoilt(self, draw):
        batch = whole(self, draw)
        spoilt.batches += 1
        if spoilt.batches == 2:
            batch.image[1, 0, 0, 0] = float("nan")
        return batch

    spoilt.batches = 0
    monkeypatch.setattr(ImageDataset, "__getitem__", spoilt)
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 4) == 1
    message = error(capsys)
    assert message.startswith("1 of 4 samples met a value that is not finite") and len(message.splitlines()) == 1
    saved = load(Path("runs/tiny/checkpoints/last.ckpt"))
    assert saved["global_step"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values())


def test_the_traceback_is_there_for_those_who_want_it(jiio, monkeypatch):
    monkeypatch.setenv("JIIO_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        jiio("test", "--config", "tiny.yaml", "--ckpt_path", "nope.ckpt")


# the progress bar


def test_the_bar_counts_steps_to_the_end_of_the_run(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.enable_progress_bar", "true", "--trainer.max_steps", 6) == 0
    out = capsys.readouterr().out
    assert "epoch 1: 100%" in out and "6/6" in out and "train/cost=" in out and "v_num" not in out


def test_the_bar_can_be_chosen(built):
    def bars(*args: object) -> list:
        return [
            type(c).__name__ for c in built("--config", "tiny.yaml", *args).trainer.callbacks if "Progress" in type(c).__name__
        ]

    assert bars() == []
    assert bars("--trainer.enable_progress_bar", "true") == [StepProgress.__name__]
    rich = "--trainer.callbacks+=pytorch_lightning.callbacks.RichProgressBar"
    assert bars("--trainer.enable_progress_bar", "true", rich) == ["RichProgressBar"]


def test_csv_is_a_table(trained):
    with (trained / "runs/tiny/metrics.csv").open() as file:
        assert len({len(row) for row in csv.reader(file)}) == 1


@pytest.mark.slow  # two starts of Python
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept():
    """In a process of its own: there is no way back. 64 MiB are above whatever threshold glibc may have chosen for itself."""
    program = """
import resource, torch
from jiio_lightning.cli import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

def kept():
    before = resident()
    graph = [torch.ones(2**24) for _ in range(4)]
    del graph
    return resident() - before

kept(), print(kept()), keep_freed_memory(), print(kept())
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPO)
    without, with_it = map(int, answer.stdout.split())
    assert without < 64 and with_it > 192  # MiB of 256


def test_a_command_leaves_the_process_group(jiio, tmp_path):
    """Also one that is refused: gloo's threads abort a process that still has one when Python ends."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    assert jiio("fit", "--config", "nowhere.yaml") != 0
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fit_on_a_set_with_a_flipped_byte_is_one_line(jiio, capsys, workers):
    Digits(root="here").prepare_data()
    path = Path("here/digits/images.npy")
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 1
    path.write_bytes(whole)
    assert jiio("fit", "--config", "tiny.yaml", "--data.root", "here", "--data.num_workers", workers) == 1
    assert error(capsys) == "here/digits/images.npy is damaged. Remove here/digits and prepare it again."
