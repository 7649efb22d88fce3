"""``jiio learn_start``: what it keeps beside the weights, who starts there, and who refuses."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from jiio_lightning.attacks.named import JIIO
from jiio_lightning.callbacks import AugmentedDEQSolver, SolveCurves, solve_curves
from jiio_lightning.commands.learn_start import _examples, costs, fit
from jiio_lightning.core import Joint
from jiio_lightning.core.operators import SquareMask
from jiio_lightning.data import ImageBatch
from jiio_lightning.tasks import AdversarialTraining, Inverse, MetaLearning
from jiio_lightning.tasks.base import LEARNED
from tests.attacks.smooth import Smooth
from tests.conftest import REPO, TINY, call, metrics
from tests.tasks.test_generation import batch, task
from tests.tasks.test_meta import FIXED, TanhLearner, double_precision, episodes  # noqa: F401
from tests.tasks.test_meta import inject as inject_meta
from tests.test_cli import error, load

CONFIG = ("--config", "tiny.yaml", "--data.train_limit", 300, "--model.one_cycle", False)
BRIEF = ("--trainer.max_steps", 2, "--trainer.limit_val_batches", 0, "--trainer.num_sanity_val_steps", 0)


def checkpoint(name: str) -> tuple[str, str]:
    """The option."""
    return "--ckpt_path", f"runs/tiny/checkpoints/{name}.ckpt"


def solver(learned: bool, stage: str, model) -> AugmentedDEQSolver:  # noqa: ANN001
    made = AugmentedDEQSolver(Joint(max_steps=8), Joint(max_steps=8), learned_start=learned)
    made.setup(None, model, stage)
    return made


def learned_generation():  # noqa: ANN201
    model = task()
    examples = {"x": torch.randn(20, 3), "z": torch.randn(20, model.net.hidden), "image": torch.randn(20, 1, 8, 8)}
    model.learned_start.fit(examples)
    return model


def test_only_evaluation_with_a_solver_that_wants_it_starts_there():
    model, given = learned_generation(), batch()
    x, z = model.learned_start(given.image)
    solver(True, "test", model)
    model.eval()
    assert torch.equal(model.initial(given).x, x) and torch.equal(model.initial(given).z, z)
    assert not model.train().initial(given).x.any() and not model.start(given).z.any()
    solver(False, "test", model)
    assert not model.eval().initial(given).x.any()


def test_a_start_that_is_missing_or_stale():
    model = task().eval()
    solver(True, "test", model)
    with pytest.raises(ValueError, match="the checkpoint has no learned start: run `jiio learn_start`"):
        model.initial(batch())
    with pytest.raises(ValueError, match="solver.learned_start is for trained weights"):
        solver(True, "fit", model)
    model = learned_generation()
    model.on_fit_start()
    assert not model.learned_start.fitted


def test_it_travels_with_the_weights_and_nowhere_else():
    """Into a task of the same kind; a checkpoint without one takes an old one away; other tasks leave it aside."""
    with_start, without = learned_generation().state_dict(), task().state_dict()
    model = task()
    model.load_state_dict(with_start)
    assert model.learned_start.fitted and torch.equal(model.learned_start.mean, with_start["learned_start.mean"])
    model.load_state_dict(without)
    assert not model.learned_start.fitted and model.state_dict().keys() == without.keys()
    model.learned_start = None  # as a task without one
    model.load_state_dict(with_start)


def test_the_run_files_own_attack_begins_there():
    """From the direction that was learned for its class, and no other attack does."""
    model = AdversarialTraining(Smooth(), eps=0.4).double().eval()
    given = torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions = torch.randn(3, 6, dtype=torch.float64)
    model.learned_start.fit({"x": directions, "label": torch.arange(3)})
    solver(True, "test", model)
    images = ImageBatch(given, torch.arange(3), torch.arange(3))
    wanted = 0.4 * directions / directions.norm(dim=1, keepdim=True)
    assert torch.allclose(model.initial(images).x, wanted)
    assert torch.allclose(model.attack(JIIO).first(model.target(images)).x, wanted)
    solver(False, "test", model)
    assert not model.attack(JIIO).first(model.target(images)).x.any()


def test_a_training_sample_that_is_not_finite_is_named():
    given = batch()
    given.image[2, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="sample 2 of the training split has values that are not finite"):
        fit(task(), [given], 4)


def test_the_costs_of_starts_are_means_over_all_samples():
    """Of batches of 4 and 1; each cost is that of z re-solved at the start's x."""
    model = learned_generation().eval()
    solver(True, "test", model)
    given = batch(5)
    parts = [ImageBatch(*(part[rows] for part in given)) for rows in (slice(4), slice(4, 5))]

    def cost(x) -> float:  # noqa: ANN001
        problem = model.problem(given)
        return problem.loss(model.resolve(problem, x, model.net.hidden)[0], x).mean().item()

    with torch.no_grad():
        wanted = cost(torch.zeros(5, 3)), cost(model.learned_start(given.image)[0])
    assert costs(model, parts) == pytest.approx(wanted, rel=1e-3)


def test_a_sample_that_met_a_nan_teaches_nothing(monkeypatch):
    model = learned_generation().eval()
    solver(False, "test", model)
    solved = model.inner(model.problem(batch()), model.start(batch()))
    finite = torch.tensor([True, False, True, True])
    monkeypatch.setattr(model, "inner", lambda *args: replace(solved, finite=finite))
    with pytest.warns(UserWarning):
        rows = _examples(model, batch(), most=4)
    torch.testing.assert_close(rows, {name: tensor[finite] for name, tensor in model.examples(batch(), None, solved.v).items()})


def test_the_curves_of_a_solve_begin_where_the_test_does(monkeypatch):
    model, given, curves = learned_generation().eval(), batch(), {}
    solver(True, "test", model)
    monkeypatch.setattr(solve_curves, "log_curves", lambda trainer, name, metrics: curves.update(metrics))
    SolveCurves().on_test_batch_end(SimpleNamespace(is_global_zero=True), model, None, given, 0)
    begun = model.initial(given)
    assert curves["cost"][0] == pytest.approx(float(model.problem(given).loss(begun.z, begun.x).mean()), rel=1e-5)


def test_an_inverse_problem_starts_from_what_it_sees():
    """The hidden pixels of an image do not change its start, the others do."""
    generation = learned_generation()
    model = Inverse(generation.net, SquareMask(0.5))
    model.load_state_dict(generation.state_dict())
    given = batch()
    seen = model.measurement(given).seen
    start = model.at_learned_start(given)
    for where, same in ((~seen, True), (seen, False)):
        other = model.at_learned_start(given._replace(image=torch.where(where, 0.3, given.image)))
        assert torch.equal(other.x, start.x) is same and torch.equal(other.z, start.z) is same


def test_a_few_shot_task_starts_from_its_classes_equilibria(double_precision):  # noqa: F811
    """Features are the means over the images of a class of z at x = 0, which is also where z starts."""
    model, given = MetaLearning(TanhLearner(), FIXED).eval(), episodes(shots=2)
    inject_meta(model, Joint(max_steps=2))
    plain = model.start(given)
    each = plain.z.view(2, 6, -1)
    means = torch.stack([torch.stack([each[t][given.support_label[t] == c].mean(dim=0) for c in range(3)]) for t in range(2)])
    features = model.examples(given, plain, plain)["features"]
    torch.testing.assert_close(features, means.flatten(1))
    width = features.shape[1]
    model.learned_start.fit({"x": torch.randn(40, model.net.task).double(), "features": torch.randn(40, width).double()})
    start = model.at_learned_start(given)
    assert torch.equal(start.x, model.learned_start(features)) and start.x.any() and torch.equal(start.z, plain.z)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prepared) -> Path:
    """A generator of digits after 40 steps, and its learned start beside it."""
    folder = tmp_path_factory.mktemp("started")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JIIO_DATA", str(prepared))
        Path("tiny.yaml").write_text(TINY)
        brief = ("--trainer.max_steps", 40, "--trainer.limit_val_batches", 0)
        assert call("fit", *CONFIG, *brief) == 0
        assert call("learn_start", *CONFIG, *checkpoint("last"), "--samples", 200) == 0
    return folder


@pytest.fixture
def here(folder, prepared, monkeypatch) -> Path:
    """The folder, to work in."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("JIIO_DATA", str(prepared))
    return folder / "runs/tiny"


def test_the_command_keeps_the_weights_and_lowers_the_first_cost(here):
    plain, started = (load(here / f"checkpoints/{name}.ckpt")["state_dict"] for name in ("last", "last_started"))
    assert all(torch.equal(tensor, started[name]) for name, tensor in plain.items())
    own = {name.removeprefix(LEARNED) for name in started.keys() - plain.keys()}
    assert own == {"columns", "states", "mean", "penalty"}
    record = json.loads((here / "learn_start/learn_start.json").read_text())
    assert record["provenance"]["command"].startswith("jiio learn_start")
    assert (record["samples"], record["held_out"]) == (200, 20) and record["learned"] < 0.8 * record["training"]


def test_few_steps_from_it_do_better(here):
    """Than from x = 0, by the same solver."""
    errors = []
    for name, learned in (("last", False), ("last_started", True)):
        words = ("--solver.learned_start", learned, "--solver.test.max_steps", 2)
        assert call("test", *CONFIG, *checkpoint(name), *words) == 0
        errors.append(float(metrics(Path("runs/tiny"))[-1]["test/error"]))
    assert errors[1] < 0.9 * errors[0], errors


def test_an_inverse_problem_takes_the_generators(here):
    """Few steps from it recover more of what the mask leaves than from x = 0."""
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    config["model"]["class_path"] = "jiio_lightning.tasks.Inverse"
    config["model"]["init_args"]["operator"] = {"class_path": "jiio_lightning.core.operators.SquareMask"}
    Path("inverse.yaml").write_text(yaml.safe_dump(config))
    words = ("--config", "inverse.yaml", "--solver.test.max_steps", 3, *checkpoint("last_started"))
    for learned in (False, True):
        assert call("test", *words, "--solver.learned_start", learned) == 0
    plain, started = (float(row["test/error_outside"]) for row in metrics(Path("runs/inverse")))
    assert started < 0.9 * plain, (started, plain)


def test_training_goes_on_without_it(here, tmp_path, monkeypatch):
    """From a checkpoint that has one: the weights change, and the start goes."""
    source = Path("runs/tiny/checkpoints/last_started.ckpt").resolve()
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    assert call("fit", *CONFIG, "--trainer.max_steps", 42, "--ckpt_path", source) == 0
    assert not any(name.startswith(LEARNED) for name in load(Path("runs/tiny/checkpoints/last.ckpt"))["state_dict"])


@pytest.mark.parametrize(
    ("command", "words", "complaint"),
    [
        ("learn_start", ("--samples", 9), "learn_start needs --samples of at least 10 for this net, got 9"),
        ("learn_start", ("--out", "runs"), "runs is a folder or in one that cannot be written: name another file by --out"),
        ("learn_start", ("--out", "tiny.yaml/start.ckpt"), "cannot be written (File exists): name another file by --out"),
        ("learn_start", ("--solver.test.max_steps", 1), "left all latents where they started: give the solver more steps"),
        ("learn_start", ("--solver.learned_start", True), "give it a solver without learned_start"),
        ("test", ("--solver.learned_start", True), "no learned start: run `jiio learn_start` on it"),
        ("fit", ("--solver.learned_start", True, "--trainer.max_steps", 41), "solver.learned_start is for trained weights"),
    ],
)
def test_what_is_refused(here, capsys, command, words, complaint):
    before = {path: path.stat().st_mtime for path in here.rglob("*.ckpt")}
    assert call(command, *CONFIG, *checkpoint("last"), *words) == 1
    assert complaint in error(capsys)
    assert before == {path: path.stat().st_mtime for path in here.rglob("*.ckpt")}


def test_a_start_that_is_no_better_is_not_kept(here, monkeypatch, capsys):
    monkeypatch.setattr(importlib.import_module("jiio_lightning.commands.learn_start"), "costs", lambda *args: (2.0, math.nan))
    assert call("learn_start", *CONFIG, *checkpoint("last"), "--samples", 20, "--out", "worse.ckpt") == 1
    assert "costs nan on held-out samples, 2 is where training starts: nothing was written" in error(capsys)
    assert not Path("worse.ckpt").exists()


def test_over_the_source_and_over_an_older_start(here, tmp_path):
    """The weights, whatever else the checkpoint holds and one start: the newer one."""
    copy = tmp_path / "both.ckpt"
    contents = load(here / "checkpoints/last_started.ckpt")
    contents["state_dict"] |= {"encoder.weight": torch.ones(2), f"{LEARNED}old": torch.ones(1)}
    torch.save(contents, copy)
    assert call("learn_start", *CONFIG, "--ckpt_path", copy, "--out", copy, "--samples", 100) == 0
    after = load(copy)
    assert after["state_dict"].keys() == contents["state_dict"].keys() - {f"{LEARNED}old"}
    assert after["optimizer_states"] and after["global_step"] == 40 and not list(tmp_path.glob("*.part"))
    assert not torch.equal(after["state_dict"][f"{LEARNED}mean"], contents["state_dict"][f"{LEARNED}mean"])


def test_a_task_without_a_start(jiio, capsys):
    """An autoencoder has no inner problem."""
    assert jiio("fit", "--config", REPO / "experiments/runs/digits_vae.yaml", *BRIEF) == 0
    last = next(Path("runs").rglob("last.ckpt"))
    assert jiio("learn_start", "--config", REPO / "experiments/runs/digits_vae.yaml", "--ckpt_path", last) == 1
    assert "learn_start needs a task that knows a start, the run file has Autoencoding" in error(capsys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits_adversarial", ("--solver", REPO / "conf/solver/adversarial_joint_fast.yaml")),
        ("digits_meta", ("--data.batch_size", 4, "--data.test_episodes", 8)),
    ],
)
def test_attacks_and_few_shot_tasks(jiio, name, words):
    """By command: learned, and evaluated from there."""
    config = ("--config", REPO / f"tasks/{name}.yaml")
    data = words if name == "digits_meta" else ("--data.test_limit", 20)
    few = ("--solver.test.max_steps", 10)
    training = ("--solver.train.max_steps", 10, "--data.batch_size", 4)
    assert jiio("fit", *config, *BRIEF, *training) == 0
    last = next(Path("runs").rglob("last.ckpt"))
    assert jiio("learn_start", *config, *words, *few, "--ckpt_path", last, "--samples", 40, "--held_out", 20) == 0
    started = REPO / f"conf/solver/{'adversarial' if name == 'digits_adversarial' else 'meta'}_started.yaml"
    one = ("--solver", started, "--solver.test.max_steps", 1, "--ckpt_path", last.with_name("last_started.ckpt"))
    assert jiio("test", *config, *data, *one) == 0
    record, row = json.loads(next(Path("runs").rglob("learn_start.json")).read_text()), metrics(Path(f"runs/{name}"))[-1]
    cost = -float(row["test/loss_jiio"]) if name == "digits_adversarial" else float(row["test/cost"])
    assert abs(cost - record["learned"]) < abs(cost - record["training"]), "the one iterate is the start"
