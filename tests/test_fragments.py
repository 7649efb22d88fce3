"""A fragment on the command line takes the place of what a run file says, whole."""

from __future__ import annotations

import json
import sys
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


def test_no_inner_iterations_of_the_old_solver_are_left(jiio, capsys):
    """The paper's solver, one inner iteration a step, under a run file that takes two."""
    run_file, paper = REPO / "tasks/mnist.yaml", REPO / "conf/solver/paper_generation.yaml"
    assert printed(jiio, capsys, "--config", run_file)["solver"]["train"]["init_args"]["sweeps"]["count"] == 2
    solver = printed(jiio, capsys, "--config", run_file, "--solver", paper)["solver"]
    once = {"count": 1, "loss_every": 1, "dual_start": 0, "dual_end": 0}
    assert [solver[name]["init_args"]["sweeps"] for name in ("train", "test")] == [once, once]


def test_a_part_of_a_group_is_completed():
    said = {"class_path": "jiio_lightning.core.Joint", "init_args": {"sweeps": {"dual_end": 4}, "step_sizes": {"z": 1.0}}}
    made = completed(said)["init_args"]
    assert made["sweeps"] == {"count": 1, "loss_every": 1, "dual_start": 0, "dual_end": 4}
    assert made["step_sizes"] == {"z": 1.0, "mu": 0.6}
    said["init_args"]["sweeps"] = {"class_path": "mine.Sweeps", "init_args": {"count": 3}}
    assert completed(said)["init_args"]["sweeps"] == said["init_args"]["sweeps"]


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


# what can be named

OWN = """\
import pathlib
import pytorch_lightning as pl
pathlib.Path("HERE").touch()
class Own(pl.Callback):
    pass
def make() -> pl.Callback:
    raise AssertionError("called")
"""
"""A module beside the run file that leaves a trace when it is imported."""


@pytest.fixture
def own(jiio, tmp_path, monkeypatch) -> None:
    Path("own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own", None)


def forms(class_path: str) -> dict[str, list[str]]:
    """Ways to name a class: on the command line, in run files and fragments, within other objects."""
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    named = {"class_path": class_path}
    files = {
        "run.yaml": config | {"trainer": config["trainer"] | {"callbacks": [named]}},
        "model.yaml": config | {"model": named},
        "solver.yaml": {"train": named, "test": named},
        "nested.yaml": {"class_path": "jiio_lightning.core.Joint", "init_args": {"step": named}},
        "net.yaml": named,
    }
    for name, contents in files.items():
        Path(name).write_text(yaml.safe_dump(contents))
    return {
        "an option": [f"--trainer.callbacks+={class_path}"],
        "the model": ["--model", class_path],
        "a class path": [f"--model.net.class_path={class_path}"],
        "json": [f"--solver.test={json.dumps(named)}"],
        "help": [f"--model.help={class_path}"],
        "a fragment": ["--solver", "solver.yaml"],
        "a fragment and the help": ["--solver", "solver.yaml", "--help"],
        "within a fragment": ["--solver.test", "nested.yaml"],
        "a net": ["--model.net", "net.yaml"],
        "a run file": ["--config", "run.yaml"],
        "a run file and the help": ["--config", "model.yaml", "--help"],
    }


@pytest.mark.parametrize("form", range(11))
def test_a_class_of_another_module_is_not_imported(jiio, own, capsys, form):
    """Running a file of somebody else's must not be a matter of reading it."""
    _, words = list(forms("own.Own").items())[form]
    status = jiio("fit", "--config", "tiny.yaml", *words)
    text = capsys.readouterr()
    assert not Path("HERE").exists()
    if "--help" not in words:  # which may come before the parser looks at the class
        message = text.err.partition("error: ")[2].strip()
        assert status == 2 and "own.Own is code that a run file may not name: if you trust it, add --allow own" in message
        assert len(message.splitlines()) == 1


def test_a_module_is_allowed_by_its_name(jiio, own, capsys):
    words = ("--config", "tiny.yaml", "--trainer.callbacks+=own.Own", "--print_config")
    for allowed in (("--allow", "own"), ("--allow=own",)):
        assert jiio("fit", *allowed, *words) == 0 and Path("HERE").exists()
    assert jiio("fit", *words) == 2, "for one command"
    Path("tiny.yaml").write_text(Path("tiny.yaml").read_text() + "allow: own\n")
    assert jiio("fit", *words) == 2, "not by a run file"


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "jiio_lightning.cli.os.system",
        "torch.os.system",
        "numpy.load",
        "lightning.X",
    ],
)
def test_what_is_reached_through_another_module_is_not_known(jiio, capsys, path):
    assert jiio("fit", "--config", "tiny.yaml", f"--trainer.callbacks+={path}") == 2
    message = capsys.readouterr().err.partition("error: ")[2]
    assert "is code that a run file may not name" in message


@pytest.mark.parametrize(
    "words",
    [
        ("--allow", "own", "--trainer.callbacks+=own.make"),
        ("--trainer.callbacks+=pytorch_lightning.callbacks.LambdaCallback", "--trainer.callbacks.on_fit_start=torch.hub.load"),
    ],
)
def test_a_function_is_no_class(jiio, own, capsys, words):
    """It would be called with the arguments that the run file gives."""
    assert jiio("fit", "--config", "tiny.yaml", *words) == 1
    assert "is not a class, and only classes can be named" in capsys.readouterr().err
