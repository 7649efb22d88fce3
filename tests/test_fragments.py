"""A fragment on the command line takes the place of what a run file says, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jiio_lightning.fragments import completed, whole_fragments

REPO = Path(__file__).parents[1]


def printed(jiio, capsys, *words) -> dict:
    assert jiio("fit", *words, "--print_config") == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_nothing_of_the_old_solver_is_left(jiio, capsys):
    """PGD's constant step under a run file whose own step rests at the end."""
    run_file = ("--config", REPO / "tasks/digits_adversarial.yaml")
    before = printed(jiio, capsys, *run_file)["solver"]["train"]["init_args"]["step"]["init_args"]
    assert before["schedule"]["class_path"].endswith("Settled")
    for words in (
        ("--solver", REPO / "conf/solver/adversarial_pgd.yaml"),
        (f"--solver={REPO / 'conf/solver/adversarial_pgd.yaml'}",),
    ):
        after = printed(jiio, capsys, *run_file, *words)["solver"]["train"]
        assert after["class_path"].endswith("Nested") and after["init_args"]["step"]["init_args"] == {
            "size": 0.2,
            "schedule": None,
        }


def test_nothing_of_the_old_net_is_left(jiio, capsys):
    words = ("--config", REPO / "tasks/mnist.yaml", "--model.net", REPO / "conf/model/mdeq_celeba64.yaml")
    net = printed(jiio, capsys, *words)["model"]["init_args"]["net"]["init_args"]
    assert net["downscale"] == 1 and net["channels"] == [32, 64, 128, 256], "tasks/mnist.yaml has downscale: 2"


def test_later_words_change_a_fragment(jiio, capsys):
    words = ("--config", REPO / "tasks/digits.yaml", "--solver", REPO / "conf/solver/nested.yaml", "--solver.test.max_steps", "7")
    solver = printed(jiio, capsys, *words)["solver"]
    assert solver["test"]["init_args"]["max_steps"] == 7 and solver["train"]["init_args"]["max_steps"] == 40


def test_what_is_not_an_object_stays_a_path(tmp_path):
    (tmp_path / "t.yaml").write_text("accelerator: cpu\n")
    path = str(tmp_path / "t.yaml")
    for words in (["--trainer", path], ["--config", path], ["--nonsense", path], ["fit", path]):
        assert whole_fragments(words) == words


@pytest.mark.parametrize("class_path", ["jiio_lightning.core.Nowhere", "nowhere.Thing", "Thing"])
def test_a_class_that_is_not_there_is_left_to_the_parser(class_path):
    assert completed({"class_path": class_path, "init_args": {"a": 1}}) == {"class_path": class_path, "init_args": {"a": 1}}


def test_nested_objects_are_completed():
    said = {
        "class_path": "jiio_lightning.core.Joint",
        "init_args": {"step": {"class_path": "jiio_lightning.core.steps.SelfScaled"}},
    }
    made = json.loads(json.dumps(completed(said)))["init_args"]
    assert made["step"]["init_args"] == {"size": 1.0, "forget": 1.0, "schedule": None} and made["method"] is None
