"""``jiio compare``: what it writes from a tiny run, its contenders as files, and one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from jiio_lightning.commands.checkpoint import read_checkpoint, write_checkpoint
from jiio_lightning.data import Digits
from jiio_lightning.metrics.pca import pca_error
from jiio_lightning.models import LatentGenerator
from jiio_lightning.starts import LinearDecoder
from jiio_lightning.tasks.base import LEARNED
from tests.conftest import REPO
from tests.test_cli import error

DIGITS = REPO / "conf/compare/digits.yaml"
BASELINE = """\
adam_0.3:
  family: paper
  budgets: [1, 3, 2]
  solver:
    class_path: Nested
    init_args:
      step: {class_path: Adam, init_args: {size: 0.3}}
      forward: {method: {class_path: Anderson}, max_steps: 4}
      backward: {method: {class_path: Anderson}, max_steps: 4}
"""


@pytest.fixture(scope="module")
def started(checkpoint, tmp_path_factory) -> Path:
    """The checkpoint with a start that knows nothing beside its weights."""
    path = tmp_path_factory.mktemp("start") / "started.ckpt"
    contents = read_checkpoint(checkpoint)
    draw = torch.Generator().manual_seed(0)
    hidden = LatentGenerator(4, (8, 8), (1, 8, 8), expansion=1).hidden
    x, image = torch.randn(20, 4, generator=draw), torch.randn(20, 1, 8, 8, generator=draw)
    learned = LinearDecoder(4)
    learned.fit({"x": x, "z": torch.zeros(20, hidden), "image": image})
    start = {f"{LEARNED}{name}": tensor for name, tensor in learned.state_dict().items()}
    write_checkpoint(contents | {"state_dict": contents["state_dict"] | start}, path)
    return path


@pytest.fixture
def compare(jiio, started):
    """``jiio compare`` on that checkpoint."""
    return lambda *words: jiio("compare", "--config", "tiny.yaml", "--ckpt_path", started, *words)


def test_a_solver_against_a_baseline(compare, prepared, capsys):
    """Two batches after one that is left out, the target in the table and in the record."""
    Path("baseline.yaml").write_text(BASELINE)
    words = ("--budgets", "[4,2]", "--samples", 2, "--batches", 2, "--skip", 1, "--repeats", 1)
    assert compare("--solvers", "baseline.yaml", *words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    record = json.loads(Path("runs/tiny/compare/compare.json").read_text())
    contenders, paper = record["contenders"], record["against"]["paper"]
    assert {name: list(of["at"]) for name, of in contenders.items()} == {"default": ["2", "4"], "adam_0.3": ["1", "2", "3"]}
    assert (record["samples"], record["batches"], record["repeats"], record["pixels"]) == (2, 2, 1, 64)
    assert len(record["residuals"]["z"]) == 4 and record["memory"] > 0
    data = Digits(root=str(prepared), train_limit=18)
    wanted = pca_error(data.split_images("train"), data.split_images("test", 6)[2:], components=4)
    assert record["reference"] == pytest.approx(wanted, rel=1e-5), "PCA of training images, on those that were compared"
    assert record["against"]["adam_0.3"] == paper and set(record["against"]) == {"paper", "adam_0.3"}
    assert {"seconds", "cost", "steps", "error", "psnr"} <= set(paper["reached"]["baseline"]) and "error" in paper["gap"]
    assert f"x {paper['speedup']:.1f} against the paper's Nested" in shown and "PCA, same latent" in shown
    assert "SelfScaled(size=1.0" in contenders["default"]["solver"] and contenders["default"]["start"] == "training"
    assert set(record["provenance"]) == {"command", "commit", "versions", "hardware"}
    assert record["provenance"]["command"].startswith("jiio compare --config tiny.yaml --ckpt_path")
    for name in ("cost_over_time.png", "residuals.png"):
        assert np.asarray(Image.open(f"runs/tiny/compare/{name}").convert("L")).std() > 10, f"{name} is empty"


def test_many_solvers(compare):
    assert compare("--budgets", "[2,12]", "--samples", 4, "--repeats", 2, "--solvers", DIGITS) == 0
    record = json.loads(Path("runs/tiny/compare/compare.json").read_text())
    assert list(record["contenders"]) == ["default", *yaml.safe_load(DIGITS.read_text())]
    default, cold = (record["contenders"][name] for name in ("default", "adam_0.1"))
    assert [point["evaluations"] for point in default["at"].values()] == [2, 12] and default["peak_mib"] > 0
    assert cold["at"]["2"]["evaluations"] == 2 * 19 and (cold["family"], cold["start"]) == ("paper", "zero")
    assert set(record["against"]) == {"paper", "nested", "learned", "adam_0.1", "warm_3_adam", "learned_3_adam"}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--budgets", "[]"), 1, "a contender needs one or more budgets"),
        (("--budgets", "[0]"), 2, "0 does not conform to restriction v>0"),
        (("--samples", 0), 2, "0 does not conform to restriction v>0"),
        (("--skip", -1), 2, "-1 does not conform to restriction v>=0"),
        (("--tolerance", -1), 2, "-1 does not conform to restriction v>=0"),
        (("--samples", 8, "--skip", 2), 1, "have 2 groups of 8 samples, 3 are wanted: set data.eval_batch_size"),
        ((), 1, "have 0 groups of 64 samples, 1 are wanted: set data.eval_batch_size"),
        (("--solvers", "taken.yaml"), 1, "compare has a meaning of its own for default: give that one of --solvers another name"),
    ],
)
def test_one_clear_line_for_each_mistake(compare, capsys, words, status, message):
    Path("taken.yaml").write_text(yaml.safe_dump({"default": yaml.safe_load(DIGITS.read_text())["anderson_1"]}))
    assert compare("--solvers", DIGITS, *words) == status
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_learned_start_is_wanted_before_any_work(jiio, checkpoint, capsys):
    assert jiio("compare", "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--solvers", DIGITS, "--samples", 4) == 1
    assert "learned_3_adam begins at the learned start: run `jiio learn_start`" in error(capsys)


@pytest.mark.parametrize("path", sorted(REPO.glob("**/conf/compare/*.yaml")), ids=lambda path: path.stem)
def test_contenders_in_files(jiio, capsys, path):
    """Each parses; the paper's are cold with the budgets of Table 9, and stronger ones are warm."""
    words = ("compare", "--config", "tiny.yaml", "--ckpt_path", "last", "--solvers", path, "--print_config")
    assert jiio(*words) == 0
    contenders, said = yaml.safe_load(capsys.readouterr().out)["solvers"], yaml.safe_load(path.read_text())
    for name, contender in contenders.items():
        settings = contender["solver"]["init_args"]
        assert contender["budgets"] == said[name]["budgets"] and "max_steps" not in said[name]["solver"]["init_args"]
        if contender["family"] == "paper":
            solves = (settings[name]["init_args"]["max_steps"] for name in ("forward", "backward"))
            assert (*solves, settings["warm"], contender["start"]) == (18, 20, False, None)
        elif contender["family"] in ("nested", "learned"):
            assert settings["warm"] or path.stem == "smoke", "a cold one is the paper's"
        else:
            usual = name.startswith("learned") or path.stem in ("accelerations", "smoke")
            assert contender["start"] == (None if usual else "training")


def test_later_words_change_a_contender(jiio, capsys):
    words = ("--solvers", DIGITS, "--solvers.warm_3_adam.budgets", "[7]", "--print_config")
    assert jiio("compare", "--config", "tiny.yaml", "--ckpt_path", "last", *words) == 0
    found = yaml.safe_load(capsys.readouterr().out)["solvers"]
    assert {name: one["budgets"] for name, one in found.items()} == {
        "adam_0.1": [2],
        "warm_3_adam": [7],
        "learned_3_adam": [2],
        "anderson_1": [2, 12],
    }


def test_the_help_shows_every_option(jiio, capsys):
    assert jiio("compare", "--help-all") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "Compare the run file's solver with others",
        "--solvers SOLVERS contenders by name",
        "--skip SKIP batches that are",
    ):
        assert text in shown
