"""The package's run files: found from any folder, listed, copied."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jiio_lightning import fragments
from jiio_lightning.commands import runs
from jiio_lightning.fragments import shipped
from tests.conftest import REPO, solver_of
from tests.test_cli import error


@pytest.fixture
def installed(tmp_path_factory, monkeypatch) -> Path:
    """The run files of an installed package: two tasks and their fragments."""
    root = tmp_path_factory.mktemp("run_files")
    for name in ("tasks/digits.yaml", "tasks/mnist.yaml", "conf/solver/joint.yaml", "conf/solver/nested.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text((REPO / name).read_text())
    for name in ("digits", "mnist"):
        (root / "conf/model").mkdir(exist_ok=True)
        (root / f"conf/model/mdeq_{name}.yaml").write_text((REPO / f"conf/model/mdeq_{name}.yaml").read_text())
    for module in (fragments, runs):
        monkeypatch.setattr(module, "SHIPPED", root)
    return root


def test_a_run_file_of_the_package_is_found_from_any_folder(built, installed):
    cli = built("-c", "tasks/digits.yaml", "--solver", "conf/solver/nested.yaml")
    assert cli.folder == Path("runs/digits") and type(solver_of(cli).test).__name__ == "Nested"


def test_a_file_of_the_working_directory_wins(built, installed):
    for name in ("tasks/digits.yaml", "conf/solver/joint.yaml", "conf/model/mdeq_digits.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text((REPO / name).read_text().replace("max_steps: 8", "max_steps: 7"))
    assert solver_of(built("--config", "tasks/digits.yaml")).train.max_steps == 7
    assert solver_of(built("--config=tasks/mnist.yaml", "--solver=conf/solver/joint.yaml")).train.max_steps == 7


@pytest.mark.parametrize("path", ["digits.yaml", "tasks/nowhere.yaml", "setup.cfg", "/tasks/digits.yaml"])
def test_nothing_else_is_the_packages(jiio, path):
    assert shipped(path) == Path(path)


def test_the_list_has_the_first_line_of_each(jiio, capsys):
    for words in ((), ("list",)):
        assert jiio("runs", *words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(list(REPO.glob("tasks/*.yaml")))
        assert "tasks/digits.yaml                JIIO generator on 8x8 digits: Sec. 4.1 in minutes on two cores." in lines


def test_a_copy_runs_by_itself(built, installed, jiio, capsys):
    assert jiio("runs", "copy", "digits") == 0
    files = ["tasks/digits.yaml", "conf/solver/joint.yaml", "conf/model/mdeq_digits.yaml"]
    assert capsys.readouterr().out.splitlines() == files
    for name in files:
        assert Path(name).read_text() == (REPO / name).read_text()
        (installed / name).unlink()
    assert built("--config", "tasks/digits.yaml").model.net.latent == 16


def test_every_run_file_can_be_copied(jiio, tmp_path):
    """Its fragments are all that it names, and each is there."""
    for path in REPO.glob("tasks/*.yaml"):
        assert jiio("runs", "copy", path.stem, tmp_path / path.stem) == 0
        for part in (tmp_path / path.stem).rglob("*.yaml"):
            assert ".yaml" not in str(yaml.safe_load(part.read_text())) or part.parent.name == "tasks"


def test_a_copy_replaces_nothing(jiio, capsys, tmp_path):
    assert jiio("runs", "copy", "digits", tmp_path) == 0
    (tmp_path / "conf/solver/joint.yaml").write_text("# mine\n")
    capsys.readouterr()
    assert jiio("runs", "copy", "mnist", tmp_path) == 0
    assert f"{tmp_path}/conf/solver/joint.yaml stays as it is" in capsys.readouterr().out
    assert (tmp_path / "conf/solver/joint.yaml").read_text() == "# mine\n"
    assert jiio("runs", "copy", "digits", tmp_path) == 1
    assert error(capsys) == f"{tmp_path}/tasks/digits.yaml is there already, and is not replaced"


def test_a_run_file_that_is_not_there(jiio, capsys):
    assert jiio("runs", "copy", "digit") == 1
    assert error(capsys) == "there is no run file digit: `jiio runs` lists them"


def test_the_package_brings_only_what_it_can_run():
    """Run files of the baselines, which are not installed, stay where they are."""
    for path in (*REPO.glob("tasks/*.yaml"), *REPO.glob("conf/**/*.yaml")):
        assert "experiments" not in str(yaml.safe_load(path.read_text())), path
