"""``jiio predict`` on a user's folder: the table, the arrays and the picture say the same, and it is right."""

from __future__ import annotations

import csv
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule

from experiments.baselines import Conv4, PrototypicalNetwork
from jiio_lightning.callbacks.prediction_writer import classified
from jiio_lightning.core import FixedInput
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.data import EpisodeBatch, FewShotFolder
from jiio_lightning.models import FiLMClassifier
from jiio_lightning.tasks import Generation, MetaLearning
from tests.conftest import REPO

NET = ("--model.net.image_shape", "[1,8,8]", "--model.net.filters", 16, "--model.net.strided", "true")
QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", "out")
WEIGHTS = ("--ckpt_path", "fresh.ckpt")
WRITER = ("--trainer.callbacks+", "jiio_lightning.callbacks.PredictionWriter")
FOLDER = ("--data", REPO / "conf/data/fewshot_folder.yaml", "--data.support", "support", "--data.query", "query")
NAMES = ("apple", "bee", "cat", "$dog", "elk, brown")
ASKED = (3, 0, 4, 4, 1, 2, 0)


@pytest.fixture
def folders(jiio) -> None:
    """Five classes of one image each; each query is the image of one of them."""
    drawn = [(np.random.default_rng(seed).random((8, 8)) * 255).astype(np.uint8) for seed in range(5)]
    Path("query").mkdir()
    for name, pixels in zip(NAMES, drawn, strict=True):
        (Path("support") / name).mkdir(parents=True)
        Image.fromarray(pixels).save(Path("support") / name / "1.png")
    for k, place in enumerate(ASKED):
        Image.fromarray(drawn[place]).save(f"query/{k}.png")


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check(folder: str) -> None:
    """The table is the softmax of the arrays' logits, its columns are the sorted folders."""
    logits = torch.from_numpy(np.load(Path(folder, "predictions.npz"))["logits"])[0]
    found, names = rows(folder), sorted(NAMES)
    assert [row["file"] for row in found] == [f"{k}.png" for k in range(7)]
    for row, share in zip(found, logits.softmax(dim=1).tolist(), strict=True):
        assert [float(row[f"probability of {name}"]) for name in names] == pytest.approx(share, rel=1e-5)
        assert row["class"] == names[int(np.argmax(share))] and float(row["probability"]) == pytest.approx(max(share), rel=1e-5)
    assert Image.open(Path(folder, "classified.png")).size[0] > 400


def save(task: LightningModule) -> None:
    """Its weights as a checkpoint."""
    torch.save({"state_dict": task.state_dict(), "pytorch-lightning_version": "2.5.0"}, "fresh.ckpt")


def test_an_image_of_the_support_set_is_of_its_class(jiio, folders):
    """Prototypes of one image: nothing is nearer to a copy than its original, whatever the weights."""
    save(PrototypicalNetwork(Conv4((1, 8, 8), None, filters=16, norm="running", strided=True)))
    config = ("--config", REPO / "experiments/runs/omniglot_protonet.yaml", *NET)
    assert jiio("predict", *config, *QUIET, *WRITER, *FOLDER, *WEIGHTS) == 0
    check("out/predictions")
    assert [row["class"] for row in rows("out/predictions")] == [NAMES[place] for place in ASKED]


def test_the_joint_method_adapts_to_a_folder(jiio, folders, capsys):
    save(MetaLearning(FiLMClassifier(40, (8, 16), (1, 8, 8), expansion=2), FixedInput(FixedPoint(Picard(), 1))))
    config = ("--config", REPO / "tasks/digits_meta.yaml", "--solver.test.max_steps", 12)
    assert jiio("predict", *config, *QUIET, *FOLDER, *WEIGHTS) == 0
    check("out/predictions")
    (Path("support") / "fly").mkdir()
    capsys.readouterr()
    assert jiio("predict", *config, *QUIET, *FOLDER, *WEIGHTS) == 1
    assert "error: support/fly is empty" in capsys.readouterr().err


def test_the_picture_has_the_support_images_above_the_answers():
    data = FewShotFolder(value_range=(-1.0, 0.0))
    data.classes, data.files = ("a", "$b"), ("x", "y", "z")
    images = -torch.rand(1, 7, 1, 4, 4)
    labels = torch.tensor([[0, 0, 1, 1]])
    data.episode = EpisodeBatch(images[:, :4], labels, images[:, 4:], torch.full((1, 3), -1), torch.zeros(1))
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]])
    places = np.array(classified(data, logits, 3).axes, dtype=object).reshape(3, 5)
    shown = {(r, c): image[0] for r in range(3) for c in range(5) if (image := places[r, c].get_images())}
    expected = {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3, (2, 0): 4, (2, 1): 5, (2, 2): 6}
    assert shown.keys() == expected.keys()
    for place, number in expected.items():
        assert np.array_equal(shown[place].get_array(), images[0, number, 0].numpy()) and shown[place].get_clim() == (-1, 0)
    titles = [places[place].get_title() for place in expected]
    assert titles == ["class a", "class a", "class $b", "class $b", "a\n100%", "$b\n100%", "a\n50%"]


def test_names_that_are_not_utf_8(jiio, folders):
    """Their bytes are shown."""
    os.rename("support/cat", b"support/caf\xe9")
    os.rename("query/0.png", b"query/0\xff.png")
    os.rename("support/bee", "support/\u732b")
    save(PrototypicalNetwork(Conv4((1, 8, 8), None, filters=16, norm="running", strided=True)))
    config = ("--config", REPO / "experiments/runs/omniglot_protonet.yaml", *NET)
    assert jiio("predict", *config, *QUIET, *WRITER, *FOLDER, *WEIGHTS) == 0
    found = Path("out/predictions/predictions.csv").read_text(encoding="utf-8")
    assert "probability of caf\\xe9" in found and "0\\xff.png" in found and "\u732b" in found
    assert len(found.splitlines()) == 8 and Path("out/predictions/classified.png").is_file()


def test_a_run_file_need_not_name_it(jiio, trained):
    read = ("--ckpt_path", trained / "runs/tiny/checkpoints/last.ckpt", "--trainer.callbacks", "null")
    assert jiio("predict", "--config", "tiny.yaml", *read) == 0
    assert np.load("runs/tiny/predictions/predictions.npz")["latent"].shape == (20, 4)


def test_predictions_without_names_are_one_clear_error(jiio, trained, capsys, monkeypatch):
    monkeypatch.setattr(Generation, "predict_step", lambda self, batch, batch_idx: batch.image)
    assert jiio("predict", "--config", "tiny.yaml", "--ckpt_path", trained / "runs/tiny/checkpoints/last.ckpt") == 1
    assert "predict_step of Generation has to return a dict of tensors" in capsys.readouterr().err


def test_predictions_are_written_whole_or_not_at_all(jiio, folders, monkeypatch):
    save(PrototypicalNetwork(Conv4((1, 8, 8), None, filters=16, norm="running", strided=True)))
    config = ("--config", REPO / "experiments/runs/omniglot_protonet.yaml", *NET)
    words = ("predict", *config, *QUIET, *WRITER, *FOLDER, *WEIGHTS)
    assert jiio(*words) == 0
    before = {path: path.read_bytes() for path in Path("out/predictions").iterdir()}
    os.rename("query/1.png", "query/other.png")
    monkeypatch.setattr("jiio_lightning.callbacks.prediction_writer.classified", partial(raising, ValueError("a full disk")))
    assert jiio(*words) == 1
    assert {path: path.read_bytes() for path in Path("out/predictions").iterdir()} == before


def raising(error: Exception, *args: object) -> None:
    raise error
