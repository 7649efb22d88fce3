"""JIIO on an implicit representation of a set of images: what works on an MDEQ works on it unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.conftest import REPO

NET = """\
class_path: jiio_lightning.models.CoordinateGenerator
init_args:
  latent: 4
  image_shape: [1, 8, 8]
  cell: {class_path: jiio_lightning.models.ISIREN, init_args: {dims: 2, channels: 1, width: 8, scale: 4}}
"""
INVERSE = """\
model:
  class_path: jiio_lightning.tasks.Inverse
  init_args:
    net: net.yaml
    operator: {class_path: jiio_lightning.core.operators.%s}
"""
LAST = "runs/tiny/checkpoints/last.ckpt"


def test_joint_nested_learned_start_and_inverse_problems(jiio):
    Path("net.yaml").write_text(NET)
    tiny = ("--config", "tiny.yaml", "--model.net", "net.yaml", "--jacobian.coefficient", 0, "--model.learning_rate", 0.05)
    assert jiio("fit", *tiny) == 0
    state = torch.load(LAST, weights_only=True)["state_dict"]
    weight, block = (state[f"net.cell.linears.0.parametrizations.weight.{name}"] for name in ("original", "0.block"))
    assert torch.linalg.matrix_norm(weight @ block, 2) > 0.97, "the bound has something to do, and has followed the weight"
    nested = ("--solver", REPO / "conf/solver/nested.yaml", "--solver.test.max_steps", 2)
    assert jiio("test", *tiny, "--ckpt_path", LAST, *nested) == 0
    assert jiio("learn_start", *tiny, "--ckpt_path", LAST, "--samples", 16, "--held_out", 8) == 0
    started = ("--ckpt_path", LAST.replace("last", "last_started"), "--solver", REPO / "conf/solver/joint_started.yaml")
    assert jiio("test", *tiny, *started) == 0
    images = {}
    for zoom in (1, 3):
        assert jiio("predict", *tiny, "--ckpt_path", LAST, "--model.zoom", zoom) == 0
        images[zoom] = np.load("runs/tiny/predictions/predictions.npz")["image"]
    assert images[3].shape == (20, 1, 24, 24) and images[1].std() > 0.1
    np.testing.assert_allclose(images[3][..., 1::3, 1::3], images[1], atol=2e-2)  # the same places, z solved anew
    for operator in ("SquareMask", "Downsampling"):
        Path("inverse.yaml").write_text(INVERSE % operator)
        words = ("--config", "tiny.yaml", "--config", "inverse.yaml", "--name", operator)
        assert jiio("predict", *words, "--ckpt_path", LAST) == 0
        made = np.load(f"runs/{operator}/predictions/predictions.npz")["image"]
        assert made.shape == (20, 1, 8, 8) and np.isfinite(made).all()


def test_only_a_coordinate_generator_reads_on_another_grid(jiio, capsys):
    assert jiio("fit", "--config", "tiny.yaml", "--model.zoom", 2) == 1
    assert "has images of one size: leave model.zoom at 1, or take a CoordinateGenerator" in capsys.readouterr().err
