"""Reading checkpoints: one line for what is damaged, made by hand or hostile, and nothing in a file is run."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from jiio_lightning.commands.checkpoint import CheckpointFiles, find_checkpoint, read_checkpoint
from jiio_lightning.data import DataError, Digits
from jiio_lightning.data.omniglot import from_arrays
from jiio_lightning.data.originals import Originals
from jiio_lightning.metrics.extractors import Inception, TrainedFeatures
from jiio_lightning.metrics.frechet import Statistics
from tests.conftest import metrics
from tests.test_cli import error


class Hostile:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return (os.system, ("touch HERE",))


@pytest.fixture
def contents(checkpoint) -> dict:
    return torch.load(checkpoint, weights_only=True)


def written(contents: object) -> Path:
    torch.save(contents, "made.ckpt")
    return Path("made.ckpt")


# where it is


@pytest.mark.parametrize("command", ["test", "predict", "validate", "compare"])
def test_a_command_without_a_checkpoint_takes_the_runs_own(jiio, capsys, caplog, command):
    """Not untrained weights without a word; what it does with them is the same as if they were named."""
    words = (command, "--config", "tiny.yaml", "--data.test_limit", 4)
    measured = ("--samples", 4, "--budgets", "[2]", "--repeats", 1) if command == "compare" else ()
    assert jiio(*words, *measured) == 1
    message = error(capsys)
    assert "there are no weights: runs/tiny/checkpoints/last.ckpt is not there" in message and "--ckpt_path none" in message
    if command != "test":
        return
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.max_steps", 1) == 0
    assert jiio(*words) == 0
    assert "weights: runs/tiny/checkpoints/last.ckpt, the run's own" in caplog.text
    for word in ("last", "none"):
        assert jiio(*words, "--ckpt_path", word) == 0
    errors = [float(row["test/error"]) for row in metrics(Path("runs/tiny")) if row["test/error"]]
    assert errors[0] == errors[1] != errors[2], "none: a fresh net"


def test_a_fit_begins_anew_unless_told():
    assert find_checkpoint(None, Path("nowhere"), resumes=True) is None
    assert find_checkpoint("last", Path("runs"), resumes=True) == Path("runs/last.ckpt")


def test_the_best_is_what_a_callback_of_the_run_has_kept(contents, tmp_path):
    torch.save(contents, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="kept no best checkpoint"):
        find_checkpoint("best", tmp_path, resumes=False)
    state = {"monitor": "val/error", "best_model_path": "/elsewhere/epoch=1.ckpt"}
    torch.save(contents | {"callbacks": {"ModelCheckpoint": state}}, tmp_path / "last.ckpt")
    assert find_checkpoint("best", tmp_path, resumes=False) == tmp_path / "epoch=1.ckpt", "the folder may have been moved"


@pytest.mark.parametrize("command", ["fit", "test", "compare"])
def test_an_address_is_refused(jiio, capsys, command):
    """Lightning fetches one and unpickles whatever it finds."""
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", "http://localhost/name") == 1
    message = error(capsys)
    assert "http://localhost/name is an address" in message and len(message.splitlines()) == 1
    for address in ("https://localhost/a.ckpt", "s3://bucket/name", "file:///a.ckpt"):
        with pytest.raises(ValueError, match="is an address"):
            find_checkpoint(address, Path(), resumes=command == "fit")


# what is in it


@pytest.mark.parametrize("command", ["fit", "test", "learn_start"])
def test_the_pickle_of_somebody_else_is_not_run(jiio, capsys, contents, command):
    path = written(contents | {"hidden": Hostile()})
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", path) == 1
    assert "which could run code and is never loaded" in error(capsys) and not Path("HERE").exists()


def test_no_file_that_is_read_is_unpickled(jiio, contents, capsys):
    """A plain pickle, torch's old format, Lightning's own switch, an extractor's weights."""
    Path("plain.ckpt").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    torch.save(contents | {"hidden": Hostile()}, "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("plain.ckpt", "old.ckpt"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a checkpoint"):
            read_checkpoint(name)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            CheckpointFiles().load_checkpoint(name, weights_only=False)
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", "old.ckpt", "--weights_only", "false") == 2
    with pytest.raises(ValueError, match="holds more than tensors"):
        _ = TrainedFeatures(str(written({"settings": Hostile()}))).metric
    assert not Path("HERE").exists()


def test_no_array_is_unpickled(tmp_path):
    """Of a prepared set, of originals, of a reference; Inception's weights are a pickle, and are known by their hash."""
    objects = np.array([Hostile()], dtype=object)
    data = Digits(root=str(tmp_path))
    data.prepare_data()
    np.save(tmp_path / data.name / "labels.npy", objects)
    np.savez(tmp_path / "objects.npz", images=objects, mean=objects, key=objects)
    (tmp_path / "inception.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match="labels.npy is damaged"):
        data.setup()
    with pytest.raises(DataError, match="no readable array"):
        from_arrays(Originals(tmp_path / "objects.npz", tmp_path))
    with pytest.raises(ValueError, match="no reference statistics"):
        Statistics.load(tmp_path / "objects.npz", {})
    with pytest.raises(ValueError, match="was not loaded: its SHA-256"):
        Inception(str(tmp_path / "inception.pth"))(torch.zeros(1, 3, 8, 8))
    assert not Path("HERE").exists()


def test_a_flipped_bit_is_seen(checkpoint, contents, tmp_path):
    """Refused, or nothing of the contents differs."""
    whole, draw = checkpoint.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "damaged.ckpt").write_bytes(damaged)
        try:
            found = read_checkpoint(tmp_path / "damaged.ckpt")
        except ValueError as error:
            assert "cannot be read as a checkpoint" in str(error)
            refused += 1
        else:
            assert all(torch.equal(tensor, found["state_dict"][name]) for name, tensor in contents["state_dict"].items())
    assert refused > 40, "the rest is padding"


def test_a_compressed_archive_is_refused(checkpoint, tmp_path):
    with zipfile.ZipFile(checkpoint) as archive, zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match="it is compressed"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "compare", "sample", "learn_start", "attack"])
def test_weights_that_are_not_finite_are_refused(jiio, capsys, contents, command):
    contents["state_dict"]["net.inject.bias"][3] = float("inf") if command == "fit" else float("nan")
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", written(contents)) == 1
    assert "has weights that are not finite: 1 of 43 tensors, such as net.inject.bias" in error(capsys)


NO_WEIGHTS = {
    "a list": lambda weights: list(weights.values()),
    "none": lambda weights: None,
    "numbers": lambda weights: dict.fromkeys(weights, 1.0),
    "numbered": lambda weights: dict(enumerate(weights.values())),
    "complex": lambda weights: {name: tensor.to(torch.complex64) for name, tensor in weights.items()},
    "sparse": lambda weights: {name: tensor.to_sparse() for name, tensor in weights.items()},
    "without memory": lambda weights: {name: tensor.to("meta") for name, tensor in weights.items()},
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_state_dict_that_is_no_mapping_of_tensors(contents, tmp_path, kind):
    torch.save(contents | {"state_dict": NO_WEIGHTS[kind](contents["state_dict"])}, tmp_path / "made.ckpt")
    with pytest.raises(ValueError, match="its state_dict is not a mapping of names to real tensors"):
        read_checkpoint(tmp_path / "made.ckpt")


PARTS = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers", "pytorch-lightning_version")
ODD = {
    "loops": [3, {}, {"fit_loop": 3}],
    "callbacks": [3, {"FinalCheckpoint": 3}],
    "optimizer_states": [3, [], [3], [{}], [{"state": {}, "param_groups": []}]],
    "lr_schedulers": [3, [3]],
    "epoch": ["x"],
    "pytorch-lightning_version": [None, "abc", "1.0.0"],
}


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_made_by_hand(contents, tmp_path, part):
    """Its weights can be evaluated; a run that could go on is not in it."""
    path = tmp_path / "made.ckpt"
    made = [{name: value for name, value in contents.items() if name != part}]
    made += [contents | {part: value} for value in ODD.get(part, ())]
    for each in made:
        torch.save(each, path)
        assert CheckpointFiles(resumes=False).load_checkpoint(path)["state_dict"].keys() == contents["state_dict"].keys()
        with pytest.raises(ValueError, match="holds weights but no state of a training run that could go on"):
            read_checkpoint(path, resumes=True)


def test_weights_alone_can_be_tested_and_not_gone_on_with(jiio, capsys, contents):
    """What else is in the file is not looked at: Lightning would import the class that it names and build it."""
    Path("hostile.py").write_text("import pathlib\npathlib.Path('HERE').touch()\n")
    model = {"_class_path": "hostile.Model", "learning_rate": 9.0}
    path = written({"state_dict": contents["state_dict"], "loops": 3, "hyper_parameters": model})
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", path, "--data.test_limit", 4) == 0
    assert not Path("HERE").exists()
    capsys.readouterr()
    assert jiio("fit", "--config", "tiny.yaml", "--ckpt_path", path) == 1
    assert "no state of a training run" in error(capsys)


def test_a_folder_is_no_checkpoint(jiio, capsys):
    Path("runs").mkdir()
    assert jiio("test", "--config", "tiny.yaml", "--ckpt_path", "runs") == 1
    assert error(capsys).startswith("runs is a folder: --ckpt_path names a file")
