"""``jiio attack``: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.test_adversarial import RUN, SMALL, fitted  # noqa: F401


@pytest.fixture
def attack(jiio, fitted):  # noqa: F811
    """``jiio attack`` on that checkpoint."""
    Path("small.yaml").write_text(SMALL)
    return lambda *words: jiio("attack", *RUN, "--ckpt_path", fitted, *words)


def test_attack_writes_a_table_a_record_a_picture_and_the_set(attack, capsys):
    assert attack("--attack", "intermediate,jiio", "--eps", 0.5, "--n", 10, "--save_set", "true") == 0
    shown = capsys.readouterr().out
    folder = Path("runs/digits_adversarial/attack")
    record = json.loads((folder / "attack.json").read_text())
    assert list(record) == ["clean", "intermediate", "jiio", "samples", "threat", "provenance"]
    assert record["samples"] == 10 and record["threat"] == {"eps": 0.5, "norm": "l2", "pixel_box": False}
    assert record["jiio"]["length"] == pytest.approx(0.5, abs=1e-4) and record["clean"]["length"] == 0
    assert record["jiio"]["accuracy_low"] <= record["jiio"]["accuracy"] <= record["jiio"]["accuracy_high"]
    assert record["jiio"]["residual"] < 1e-3 and "10 held-out samples, l2 eps 0.5" in shown
    arrays = np.load(folder / "attacked.npz")
    assert arrays["image"].shape == arrays["delta"].shape == (10, 1, 8, 8) and arrays["logits"].shape == (10, 10)
    assert (arrays["logits"].argmax(axis=1) == arrays["label"]).mean() == pytest.approx(record["jiio"]["accuracy"])
    assert arrays["index"].tolist() == list(range(10))
    assert (folder / "attack.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "words, complaint",
    [
        (("--attack", "pdg"), "there is no attack 'pdg': choose from clean"),
        (("--eps", 0), "an attack needs eps > 0"),
        (("--n", 999), "the test split has 20 samples, --n wants 999"),
        (("--n", 0), "--n of at least 1"),
        (("--data.value_range", "[-1.0,1.0]", "--attack", "jiio"), "set data.value_range: [0, 1]"),
    ],
)
def test_mistakes_are_one_line(attack, capsys, words, complaint):
    assert attack(*words) == 1
    message = capsys.readouterr().err
    assert complaint in message and "Traceback" not in message


def test_attack_wants_a_classifier(jiio, checkpoint, capsys):
    assert jiio("attack", "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 1
    assert "attack needs the task AdversarialTraining, the run file has Generation" in capsys.readouterr().err
