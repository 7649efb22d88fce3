"""The paper's own run files, literally, on a miniature of CelebA in its original layout; only nets and batches are shrunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jiio_lightning.core import Joint
from tests.conftest import REPO, metrics, solver_of
from tests.data.conftest import celeba_pictures, write

SMALL = ("--model.net.init_args.channels", "[8,8,8,8]", "--model.net.init_args.expansion", 1)
QUICK = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--trainer.num_sanity_val_steps", 0)


@pytest.fixture
def celeba(jiio, monkeypatch):
    """``jiio`` where ``data`` holds 20 prepared faces."""
    monkeypatch.setenv("JIIO_DATA", "data")
    write(Path("originals/img_align_celeba.zip"), celeba_pictures(20))
    assert jiio("data", "prepare", "celeba", "--source", "originals", "--strict", "false", "--root", "data") == 0
    return jiio


def run_file(name: str) -> Path:
    """Of the package, or of a baseline."""
    return next(path for path in (REPO / f"tasks/{name}.yaml", REPO / f"experiments/runs/{name}.yaml") if path.is_file())


def last(name: str) -> dict:
    return torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)


def test_celeba(celeba):
    words = ("--trainer.max_steps", 1, *SMALL, *QUICK, "--trainer.log_every_n_steps", 1, "--data.batch_size", 4)
    assert celeba("fit", "--config", REPO / "tasks/celeba.yaml", *words) == 0
    (row,) = [row for row in metrics(Path("runs/celeba")) if row["train/steps"]]
    assert row["train/steps"] == "8.0" and float(row["train/finite"]) == 1
    state = last("celeba")
    assert state["global_step"] == 1 and state["state_dict"]["net.inject.weight"].shape[1] == 128


@pytest.mark.slow
@pytest.mark.parametrize("name", ["celeba_100", "celeba_vae", "celeba_rae", "celeba_mdeq_vae"])
def test_its_companions(celeba, name):
    small = SMALL if "mdeq" in name or "100" in name else ("--model.net.init_args.decoder.init_args.width", 4)
    encoder = {
        "celeba_mdeq_vae": ("--model.encoder.init_args.channels", "[8,8,8,8]", "--model.encoder.init_args.expansion", 1),
        "celeba_100": (),
    }.get(name, ("--model.encoder.init_args.width", 4))
    words = ("--trainer.max_steps", 1, *small, *encoder, *QUICK, "--data.batch_size", 4)
    assert celeba("fit", "--config", run_file(name), *words) == 0
    assert last(name)["global_step"] == 1


@pytest.mark.parametrize(
    "name, steps, budgets, penalty", [("celeba", 50_000, (8, 100), 0.1), ("celeba_100", 25_000, (100, 100), 2.0)]
)
def test_what_the_paper_says(built, name, steps, budgets, penalty):
    """Sec. 4.1 and 4.2, C.2, C.4, C.5 and Table 9; celeba trains with 8 joint steps where the paper has 40."""
    cli = built("--config", REPO / f"tasks/{name}.yaml", *QUICK)
    solver = solver_of(cli)
    assert cli.trainer.max_steps == steps and cli.datamodule.flip and cli.datamodule.batch_size == 48 // 4
    assert isinstance(solver.train, Joint) and (solver.train.max_steps, solver.test.max_steps) == budgets
    assert cli.config.fit.jacobian.coefficient == penalty and cli.config.fit.jacobian.probes == 2
    assert cli.model.net.latent == 128 and [shape[0] for shape in cli.model.net.cell.pyramid.shapes] == [32, 64, 128, 256]
    assert cli.model.learning_rate == 1e-3


@pytest.mark.parametrize("name", ["celeba_vae", "celeba_rae", "celeba_mdeq_vae"])
def test_the_baselines_have_jiios_latent(built, name):
    cli = built("--config", run_file(name), *QUICK)
    assert cli.model.net.latent == 128 and cli.model.net.image_shape == (3, 64, 64) and cli.datamodule.flip
