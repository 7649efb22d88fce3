"""Every YAML that ships is read, built and, where it can be, checked for what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jiio_lightning.callbacks import JacobianRegularization
from jiio_lightning.core import Joint, Nested
from jiio_lightning.core.inner import InnerSolver
from jiio_lightning.core.solvers import Anderson, CostResidualTrade
from jiio_lightning.fragments import completed
from jiio_lightning.tasks import JIIOTask
from tests.conftest import REPO, solver_of

RUN_FILES = sorted([*REPO.glob("tasks/*.yaml"), *REPO.glob("experiments/runs/*.yaml")])
RUN_FILE_FOR = {
    "ImageClassifier": REPO / "tasks/digits_adversarial.yaml",
    "FiLMClassifier": REPO / "tasks/omniglot.yaml",
}
"""A run file that takes a fragment of a net, by the net's class, where ``tiny.yaml`` does not."""


def fragments(folder: str) -> list:
    """Of the package and of the experiments."""
    found = sorted(path for root in ("conf", "experiments/conf") for path in (REPO / root / folder).glob("*.yaml"))
    assert found
    return [pytest.param(path, id=path.stem) for path in found]


def test_every_folder_of_fragments_has_its_test():
    found = {path.parent.name for root in ("conf", "experiments/conf") for path in (REPO / root).rglob("*.yaml")}
    assert found == {"compare", "data", "evaluation", "logger", "model", "solver", "trainer"}


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_a_run_file_is_built(built, path):
    cli = built("--config", path)
    assert cli.datamodule is not None
    solver, needs = solver_of(cli), isinstance(cli.model, JIIOTask)
    assert needs == isinstance(solver.train, InnerSolver) == isinstance(solver.test, InnerSolver)
    assert cli.trainer.default_root_dir == f"runs/{path.stem}"
    assert cli.trainer.checkpoint_callback.dirpath.endswith(f"runs/{path.stem}/checkpoints")
    assert cli.trainer.checkpoint_callback.save_last and cli.trainer.checkpoint_callback.save_on_exception
    text = path.read_text()
    assert text.startswith("# "), "a run file says what it is"
    assert not any(f"  {key}:" in text for key in ("logger", "default_root_dir", "enable_progress_bar", "dirpath"))


@pytest.mark.parametrize("path", fragments("solver"))
def test_a_solver_fragment(built, path):
    solver = solver_of(built("--config", "tiny.yaml", "--solver", path))
    kept = yaml.safe_load(Path("tiny.yaml").read_text())["solver"]  # by a fragment for evaluation, of training
    said = kept | yaml.safe_load(path.read_text())  # anchors are resolved here
    for name, made in (("train", solver.train), ("test", solver.test)):
        assert type(made).__name__ == said[name]["class_path"].rpartition(".")[2]
        assert made.max_steps == said[name]["init_args"]["max_steps"]


def test_anchors_reach_both_solvers(built):
    solver = solver_of(built("--config", "tiny.yaml", "--solver", REPO / "conf/solver/paper_generation.yaml"))
    for made in (solver.train, solver.test):
        assert isinstance(made.method, Anderson) and (made.method.type, made.method.memory) == (1, 40)
        assert isinstance(made.selection, CostResidualTrade)
    nested = solver_of(built("--config", "tiny.yaml", "--solver", REPO / "conf/solver/nested.yaml"))
    assert isinstance(nested.test, Nested) and nested.test.backward.max_steps == 20 and nested.test.step.size == 0.1


@pytest.mark.parametrize("path", fragments("model"))
def test_a_model_fragment_is_parsed(jiio, capsys, path):
    said = yaml.safe_load(path.read_text())
    config = RUN_FILE_FOR.get(said["class_path"].rpartition(".")[2], "tiny.yaml")
    assert jiio("fit", "--config", config, "--model.net", path, "--print_config") == 0
    net = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["net"]
    assert {key: net["init_args"][key] for key in said["init_args"]} == completed(said["init_args"])


@pytest.mark.parametrize("path", fragments("trainer"))
def test_a_trainer_fragment_is_parsed(jiio, capsys, path):
    assert jiio("fit", "--config", "tiny.yaml", "--trainer", path, "--print_config") == 0
    trainer, said = yaml.safe_load(capsys.readouterr().out)["trainer"], yaml.safe_load(path.read_text())
    assert {key: trainer[key] for key in said} == said
    assert trainer["max_steps"] == 2, "the rest of the run file stays"
    assert trainer["inference_mode"] is False and trainer["use_distributed_sampler"] is False


@pytest.mark.parametrize("path", fragments("logger"))
def test_a_logger_fragment(built, monkeypatch, path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    cli = built("--config", "tiny.yaml", "--trainer.logger", path)
    said = yaml.safe_load(path.read_text())
    assert type(cli.trainer.logger).__name__ == said["class_path"].rpartition(".")[2]
    assert Path(cli.trainer.logger.save_dir) == Path("runs/tiny")


@pytest.mark.parametrize("path", fragments("evaluation"))
def test_an_evaluation_adds_its_callbacks(built, path):
    cli = built("--config", "tiny.yaml", "--config", path)
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {"SampleMetrics", "ImageGrid", "FinalCheckpoint"} <= names
    assert path.stem == "sample_metrics" or "FrechetDistance" in names


@pytest.mark.parametrize("path", fragments("data"))
def test_other_data_for_a_run_file(jiio, capsys, path):
    assert jiio("fit", "--config", REPO / "tasks/celeba.yaml", "--data", path, "--print_config") == 0
    data, said = yaml.safe_load(capsys.readouterr().out)["data"], yaml.safe_load(path.read_text())
    assert (
        data["class_path"] == said["class_path"]
        and {key: data["init_args"][key] for key in said["init_args"]} == said["init_args"]
    )


@pytest.mark.parametrize("path", [path for path in RUN_FILES if "Episode" in path.read_text() or "Omniglot" in path.read_text()])
def test_a_folder_of_your_own_has_the_value_range_of_the_training(built, path):
    trained = built("--config", path).datamodule
    folder = built("--config", path, "--data", REPO / "conf/data/fewshot_folder.yaml", "--data.support", "s").datamodule
    assert type(folder).__name__ == "FewShotFolder" and folder.support == "s"
    assert folder.value_range == trained.value_range


def test_overrides_reach_the_objects(built):
    assert solver_of(built("--config", "tiny.yaml", "--solver.test.init_args.max_steps", 9)).test.max_steps == 9
    cli = built("--config", "tiny.yaml", "--solver.test.max_steps", 11, "--jacobian.coefficient", 0, "--model.learning_rate", 0.5)
    solver = solver_of(cli)
    assert (solver.train.max_steps, solver.test.max_steps) == (25, 11) and isinstance(solver.test, Joint)
    jacobian = next(callback for callback in cli.trainer.callbacks if isinstance(callback, JacobianRegularization))
    assert jacobian.coefficient == 0 and cli.model.learning_rate == 0.5


def test_the_printed_configuration_is_a_run_file(built, jiio, capsys, tmp_path):
    assert jiio("fit", "--config", REPO / "tasks/digits.yaml", "--solver.test.max_steps", 9, "--print_config") == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    cli = built("--config", "printed.yaml")
    assert solver_of(cli).test.max_steps == 9 and cli.model.net.latent == 16


def test_a_second_file_changes_the_first(built, tmp_path):
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 7}\nsolver: {test: {init_args: {max_steps: 9}}}\n")
    cli = built("--config", "tiny.yaml", "--config", "more.yaml")
    assert cli.trainer.max_steps == 7 and solver_of(cli).test.max_steps == 9 and solver_of(cli).train.max_steps == 25
