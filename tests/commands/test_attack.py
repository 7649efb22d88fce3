"""``jiio attack``: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jiio_lightning.attacks import Attack
from jiio_lightning.commands.attack import measure
from jiio_lightning.core import Joint
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Normalised
from tests.tasks.test_adversarial import RUN, SMALL, batch, fitted, task  # noqa: F401

OWN = '{{"{}": {{"class_path": "jiio_lightning.attacks.PGD"}}}}'


@pytest.fixture
def attack(jiio, fitted):  # noqa: F811
    """``jiio attack`` on that checkpoint."""
    Path("small.yaml").write_text(SMALL)
    return lambda *words: jiio("attack", *RUN, "--ckpt_path", fitted, *words)


def test_attack_writes_a_table_a_record_a_picture_and_the_set(attack, capsys):
    assert attack("--attack", "intermediate,jiio", "--eps", 0.4, "--n", 10, "--save_set", "true") == 0
    shown = capsys.readouterr().out
    folder = Path("runs/digits_adversarial/attack")
    record = json.loads((folder / "attack.json").read_text())
    assert list(record) == ["clean", "intermediate", "jiio", "samples", "threat", "provenance"]
    assert record["samples"] == 10 and record["threat"] == {"eps": 0.4, "norm": "l2", "pixel_box": False}
    assert record["jiio"]["length"] == pytest.approx(0.4, abs=1e-4) and record["clean"]["length"] == 0
    assert record["jiio"]["accuracy_low"] <= record["jiio"]["accuracy"] <= record["jiio"]["accuracy_high"]
    assert record["jiio"]["residual"] < 1e-3 and "10 held-out samples, l2 eps 0.4" in shown
    arrays = np.load(folder / "attacked.npz")
    assert arrays["image"].shape == arrays["delta"].shape == (10, 1, 8, 8) and arrays["logits"].shape == (10, 10)
    assert (arrays["logits"].argmax(axis=1) == arrays["label"]).mean() == pytest.approx(record["jiio"]["accuracy"])
    assert arrays["index"].tolist() == list(range(10))
    assert (folder / "attack.png").stat().st_size > 5000
    assert attack("--attack", "jiio", "--n", 5) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["attack.json", "attack.png"], "the set is of the other attack"


class Noise(Attack):
    """Random perturbations, of different lengths."""

    def perturb(self, target, restart):
        return target.random(restart)


def test_residual_and_length_are_the_largest():
    solver = Joint(Normalised(0.2), max_steps=3)
    model, given = task(solver, own_attacks={"noise": Noise()}).eval(), batch(6)
    model.solver.tight = FixedPoint(Picard(), 3)
    row, arrays = measure(model, [given], "noise")
    verdict, length = model.target(given).judge(arrays["delta"].flatten(1)), arrays["delta"].flatten(1).norm(dim=1)
    assert row.residual == pytest.approx(float(verdict.residual.max())) and row.residual > 1.1 * float(verdict.residual.mean())
    assert row.length == pytest.approx(float(length.max())) and row.length > 1.05 * float(length.mean())
    assert row.loss == pytest.approx(float(verdict.loss.mean()))


@pytest.mark.parametrize(
    "words, complaint",
    [
        (("--attack", "pdg"), "there is no attack 'pdg': choose from clean"),
        (("--eps", 0), "an attack needs eps > 0"),
        (("--n", 999), "the test split has 20 samples, --n wants 999"),
        (("--trainer.limit_test_batches", 1), "trainer.limit_test_batches is 1: jiio attack does not see it: leave it out"),
        (
            ("--attack", "samples", "--model.own_attacks", OWN.format("samples")),
            "attack.json has a meaning of its own for samples",
        ),
        (("--model.own_attacks", OWN.format("clean")), "own_attacks: clean is an attack already"),
        (("--model.own_attacks", OWN.format("pgd")), "own_attacks: pgd is an attack already"),
        (("--data.value_range", "[-1.0,1.0]", "--attack", "jiio"), "set data.value_range: [0, 1]"),
    ],
)
def test_mistakes_are_one_line(attack, capsys, words, complaint):
    assert attack(*words) == 1
    message = capsys.readouterr().err
    assert complaint in message and "Traceback" not in message


def test_a_number_that_cannot_be_is_refused_before_any_work(attack, capsys):
    assert attack("--n", 0) == 2 and "n: " in capsys.readouterr().err


def test_compare_is_for_attacks_too(jiio, fitted, capsys):  # noqa: F811
    Path("small.yaml").write_text(SMALL)
    Path("pgd.yaml").write_text(
        "pgd_1:\n  family: paper\n  budgets: [1, 2]\n  solver:\n    class_path: Nested\n    init_args:\n"
        "      step: {class_path: Normalised, init_args: {size: 1.0}}\n"
        "      forward: &solve {method: {class_path: Anderson}, max_steps: 6}\n      backward: *solve\n"
    )
    words = ("--solvers", "pgd.yaml", "--budgets", "[2,4]", "--samples", 4, "--repeats", 1)
    assert jiio("compare", *RUN, "--ckpt_path", fitted, *words) == 0
    record = json.loads(Path("runs/digits_adversarial/compare/compare.json").read_text())
    points = [point for one in record["contenders"].values() for point in one["at"].values()]
    assert len(points) == 4 and all(point["cost"] < 0 and 0 <= point["accuracy"] <= 1 for point in points), (
        "minus a cross-entropy"
    )
    assert "accuracy" in record["against"]["paper"]["gap"] and "accuracy" in capsys.readouterr().out


def test_attack_wants_a_classifier(jiio, checkpoint, capsys):
    assert jiio("attack", "--config", "tiny.yaml", "--ckpt_path", checkpoint) == 1
    assert "attack needs the task AdversarialTraining, the run file has Generation" in capsys.readouterr().err
