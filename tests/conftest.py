"""A tiny run on digits, driven through the command line in this process."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jiio_lightning.__main__ import main
from jiio_lightning.callbacks import AugmentedDEQSolver
from jiio_lightning.cli import JIIOCLI

REPO = Path(__file__).parents[1]
TINY = """\
trainer:
  accelerator: cpu
  devices: 1
  max_steps: 2
  val_check_interval: 2
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  gradient_clip_val: 1.0
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: ImageGrid, init_args: {count: 4, enlarge: 1}}, PCAReference, PredictionWriter]
solver:
  train: {class_path: jiio_lightning.core.Joint, init_args: {max_steps: 25}}
  test: {class_path: jiio_lightning.core.Joint, init_args: {max_steps: 8}}
jacobian: {coefficient: 0.1, probes: 1}
model:
  class_path: jiio_lightning.tasks.Generation
  init_args:
    net:
      class_path: jiio_lightning.models.LatentGenerator
      init_args: {latent: 4, channels: [8, 8], image_shape: [1, 8, 8], expansion: 1}
    learning_rate: 3.0e-3
data:
  class_path: jiio_lightning.data.Digits
  init_args: {batch_size: 4, eval_batch_size: 8, train_limit: 18, val_limit: 8, test_limit: 20}
"""
Jiio = Callable[..., int]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The tests' tensors are tiny: a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """Where the data sets of this session are prepared, once."""
    return tmp_path_factory.mktemp("data")


def call(*args: object) -> int:
    """``jiio ARGS`` in this process; a refused command gives argparse's exit status."""
    before, sys.argv = sys.argv, ["jiio", *map(str, args)]
    try:
        return main()
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.argv = before


@pytest.fixture
def jiio(tmp_path, prepared, monkeypatch) -> Jiio:
    """The command, in an empty working directory that holds ``tiny.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIIO_DATA", str(prepared))
    Path("tiny.yaml").write_text(TINY)
    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory, prepared) -> Path:
    """The folder of a finished ``jiio fit --config tiny.yaml``: its runs, and no more to be written in it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JIIO_DATA", str(prepared))
        Path("tiny.yaml").write_text(TINY)
        assert call("fit", "--config", "tiny.yaml") == 0
    return folder


@pytest.fixture(scope="session")
def checkpoint(trained) -> Path:
    """Its last checkpoint."""
    return trained / "runs" / "tiny" / "checkpoints" / "last.ckpt"


@pytest.fixture
def built(jiio, monkeypatch) -> Callable[..., JIIOCLI]:
    """``jiio fit ARGS`` up to the point where everything is made; returns the CLI with its trainer, model and datamodule."""
    made: list[JIIOCLI] = []
    monkeypatch.setattr(JIIOCLI, "_run_subcommand", lambda self, name: made.append(self))
    monkeypatch.setattr(JIIOCLI, "after_fit", lambda self: None)

    def build(*args: object) -> JIIOCLI:
        assert jiio("fit", *args) == 0
        return made[-1]

    return build


def solver_of(cli: JIIOCLI) -> AugmentedDEQSolver:
    """The injected solver of a CLI."""
    return next(callback for callback in cli.trainer.callbacks if isinstance(callback, AugmentedDEQSolver))


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``."""
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
