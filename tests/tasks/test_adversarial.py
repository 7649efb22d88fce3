"""Adversarial training: the gradient of the weights, the regimes, what is logged, and the command ``attack``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jiio_lightning.attacks import PGD, SolverAttack
from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Augmented, DualReuse, Joint, Nested
from jiio_lightning.core.solvers import Anderson, FixedPoint, Picard
from jiio_lightning.core.steps import Cosine, Normalised, Settled, Sign
from jiio_lightning.data import Digits, ImageBatch
from jiio_lightning.metrics.intervals import share_interval
from jiio_lightning.models import ImageClassifier
from jiio_lightning.tasks import AdversarialTraining
from tests.attacks.smooth import TIGHT, Begins, Smooth
from tests.conftest import REPO, metrics

SMALL = """\
trainer:
  max_steps: 3
  log_every_n_steps: 1
  limit_val_batches: 1
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  val_check_interval: 3
data: {batch_size: 4, eval_batch_size: 8, train_limit: 12, val_limit: 8, test_limit: 20}
solver: {train: {init_args: {max_steps: 24}}, test: {init_args: {max_steps: 16}}}
"""
RUN = ("--config", REPO / "tasks/digits_adversarial.yaml", "--config", "small.yaml")


def task(train, **options) -> AdversarialTraining:
    """A smooth float64 task with an injected solver, tight re-solves, and a record of what it logs."""
    model = AdversarialTraining(Smooth(), **{"eps": 0.4} | options).train()
    solver = AugmentedDEQSolver(train, train, FixedPoint(Picard(), 400, tol=1e-14))
    solver.setup(None, model, "fit")
    model.logged = {}
    model.log = lambda name, value, **_: model.logged.update({name: float(value)})
    return model


def batch(size: int = 4) -> ImageBatch:
    image = torch.rand(size, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ImageBatch(image, torch.arange(size) % 3, torch.arange(size))


def converged() -> Joint:
    return Joint(Normalised(0.2), max_steps=600, tol=1e-13)


def slope(model: AdversarialTraining, given: ImageBatch, direction: list[torch.Tensor]) -> float:
    gradients = torch.autograd.grad(model.training_step(given, 0), list(model.parameters()))
    return float(sum((gradient * part).sum() for gradient, part in zip(gradients, direction, strict=True)))


@torch.no_grad()
def resolved(model: AdversarialTraining, given: ImageBatch, direction: list[torch.Tensor], step: float) -> float:
    """The mean cross-entropy under attack with moved weights, z, mu and delta re-solved."""
    weights = list(model.parameters())
    torch._foreach_add_(weights, direction, alpha=step)
    cost = model.inner(model.problem(given), model.start(given)).cost.mean()
    torch._foreach_add_(weights, direction, alpha=-step)
    return -float(cost)


@pytest.mark.parametrize("norm, pixel_box", [("l2", False), ("l2", True)])
def test_the_gradient_descends_the_attacked_loss(norm, pixel_box):
    """With the ball active, and with the box: minus the Lagrangian's gradient is that of the re-solved cross-entropy (Eq. 19)."""
    torch.manual_seed(0)
    model, given = task(converged(), norm=norm, pixel_box=pixel_box), batch()
    solution = model.inner(model.problem(given), model.start(given))
    assert float(solution.residuals[:, :2].max()) < 1e-10
    assert torch.allclose(solution.v.x.norm(dim=1), torch.tensor(0.4, dtype=torch.float64), atol=1e-9), "the ball is active"
    direction = [torch.randn_like(weight) for weight in model.parameters()]
    found = slope(model, given, direction)
    wanted = (resolved(model, given, direction, 1e-5) - resolved(model, given, direction, -1e-5)) / 2e-5
    assert found == pytest.approx(wanted, rel=1e-4) and abs(found) > 1e-3


def test_the_clean_regime_is_the_ordinary_implicit_gradient():
    torch.manual_seed(0)
    given = batch()
    model = task(Nested(Normalised(0.0), TIGHT, TIGHT, max_steps=1))
    found = torch.autograd.grad(model.training_step(given, 0), list(model.parameters()))
    z = torch.zeros(4, 5, dtype=torch.float64)
    for _ in range(200):
        z = model.net.f(z, given.image.flatten(1))  # differentiated through all iterations
    wanted = torch.autograd.grad(F.cross_entropy(model.net.h(z), given.label), list(model.parameters()))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("warm", [None, FixedPoint(Picard(), 5)], ids=["cold", "warm"])
@pytest.mark.parametrize("regime", ["joint", "clean"])
def test_every_weight_is_trained(regime, warm):
    """Also those behind a weight norm, whose cached values must not come from a solve without a graph."""
    torch.manual_seed(0)
    solve = FixedPoint(Picard(), 20)
    train = Joint(Normalised(0.1, Settled()), max_steps=30) if regime == "joint" else Nested(Normalised(0), solve, solve, 1)
    net = ImageClassifier((4, 4), (1, 4, 4), expansion=1, head_width=4, features=8).double()
    model = task(train, warm=warm)
    model.net, model.solver.trust_tol = net, 10.0
    image = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    given = ImageBatch(image, torch.arange(4), torch.arange(4))
    gradients = torch.autograd.grad(model.training_step(given, 0), list(net.parameters()), allow_unused=True)
    names = [name for name, _ in net.named_parameters()]
    silent = [name for name, part in zip(names, gradients, strict=True) if part is None or not part.any()]
    assert not silent, silent


def test_refining_mu_mends_a_dual_that_has_not_converged():
    given, exact = batch(), task(converged())
    solution = exact.inner(exact.problem(given), exact.start(given))
    young = replace(solution.v, mu=0.5 * solution.v.mu)

    def gradient(outer: DualReuse, v: Augmented) -> torch.Tensor:
        problem = exact.problem(given)
        value = outer.surrogate(problem, exact.outer_loss(given, problem), v).value.mean()
        return torch.autograd.grad(value, exact.net.recurrent)[0]

    wanted = gradient(exact.outer, solution.v)
    torch.testing.assert_close(gradient(DualReuse(sign=-1, refine=TIGHT), young), wanted, rtol=1e-8, atol=1e-12)
    assert float((gradient(exact.outer, young) - wanted).norm() / wanted.norm()) > 0.3


def test_the_losses_that_are_logged_are_cross_entropies():
    """Not the Lagrangian, whose value off the constraint means nothing, and not its negative."""
    given = batch()
    model = task(Joint(Normalised(0.2), max_steps=3))
    model.solver.trust_tol = 10.0
    model.training_step(given, 0)
    solution = model.inner(model.problem(given), model.start(given))
    logits = model.net.h(solution.v.z)
    assert model.logged["train/loss"] == pytest.approx(float(F.cross_entropy(logits, given.label).detach()), rel=1e-10)
    assert model.logged["train/loss"] == pytest.approx(-model.logged["train/cost"], rel=1e-10)
    assert model.logged["train/loss"] != pytest.approx(
        -float(model.problem(given).lagrangian(solution.v).mean().detach()), rel=1e-3
    )
    assert model.logged["train/accuracy"] == pytest.approx(float((logits.argmax(dim=1) == given.label).double().mean()))


def test_starts():
    given = batch()
    cold = task(converged()).start(given)
    assert not cold.x.any() and not cold.z.any() and not cold.mu.any()
    warm = task(converged(), warm=TIGHT).start(given)
    model = task(converged(), random_start=True)
    assert torch.allclose(warm.z, model.net.f(warm.z, given.image.flatten(1)), atol=1e-12) and not warm.x.any()
    drawn = model.start(given).x
    model.threat.check(given.image.flatten(1), drawn)
    assert drawn.any() and drawn.equal(model.start(given).x), "a function of (seed, step, sample)"
    assert not model.eval().start(given).x.any(), "in training alone"


def test_the_run_files_own_attack_begins_where_the_task_does():
    given = batch()
    for warm in (None, TIGHT):
        model = task(Begins(Normalised(0.2), max_steps=1), warm=warm).eval()
        model.attacked(given, ("jiio",))
        z = model.solver.test.v0.z
        assert torch.allclose(z, model.net.f(z, given.image.flatten(1)), atol=1e-12) if warm else not z.any()


def test_settling_lets_the_dual_converge():
    """What keeps the trust mask of the solver from silencing every sample; steps that go on leave mu behind."""
    given = batch()
    residuals = []
    for schedule in (None, Settled(Cosine(), steps=15)):
        model = task(Joint(Normalised(0.3, schedule), max_steps=40), pixel_box=True)
        residuals.append(float(model.inner(model.problem(given), model.start(given)).residuals[:, 1].median()))
    assert residuals[1] < 1e-2
    schedule = Settled(Cosine(), steps=10)
    assert [schedule(step, 40) for step in (0, 15, 30, 39)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match="steps >= 0"):
        Settled(steps=-1)


def test_a_test_step_returns_metrics_of_each_sample():
    given = batch(6)
    strong = SolverAttack(Joint(Normalised(0.2), max_steps=50), restarts=2)
    model = task(Joint(Normalised(0.2, Cosine()), max_steps=30), attacks=("jiio",), own_attacks={"own": strong}).eval()
    found = model.test_step(given, 0)
    kinds, names = ("accuracy", "loss", "residual", "unconverged"), ("clean", "jiio", "own")
    assert set(found) == {f"{kind}_{name}" for kind in kinds for name in names} | {"index"}
    assert all(value.shape == (6,) for value in found.values()) and found["index"].equal(given.index)
    assert bool((found["loss_jiio"] > found["loss_clean"]).all()) and bool((found["loss_own"] >= found["loss_jiio"] - 1e-6).all())
    clean = model.target(given).judge(torch.zeros(6, 6, dtype=torch.float64))
    assert found["accuracy_clean"].equal(clean.correct.float()) and found["residual_clean"].max() < 1e-10
    assert not found["unconverged_clean"].any()


def test_the_steps_of_the_other_norm_are_refused():
    """They would leave a weak attack, and a net that looks robust."""
    model = task(Joint(Normalised(0.1), max_steps=2), norm="linf", eps=0.1)
    for attempt in (lambda: model.start(batch()), lambda: model.attack("jiio")):
        with pytest.raises(ValueError, match=r"model.norm is linf.*steps.Sign"):
            attempt()
    task(Joint(Sign(0.1), max_steps=2), norm="linf", eps=0.1).start(batch())


def test_a_perturbation_that_is_not_allowed_is_not_judged():
    model, given = task(converged()), batch()
    with pytest.raises(ValueError, match="left its ball"):
        model.evaluate(given, model.problem(given), torch.zeros(4, model.net.hidden), torch.ones(4, 6).double())


def test_what_cannot_be_meant():
    with pytest.raises(ValueError, match="needs eps > 0"):
        AdversarialTraining(Smooth(), eps=-1.0)
    with pytest.raises(ValueError, match="outer: DualReuse needs sign: -1"):
        AdversarialTraining(Smooth(), outer=DualReuse())
    model, given = task(converged()), batch()
    with pytest.raises(ValueError, match="set data.value_range"):
        model.training_step(given._replace(image=given.image - 0.5), 0)
    with pytest.raises(ValueError, match="no attack 'pdg': choose from clean, pgd, pgd_strong, autoattack, intermediate, jiio"):
        model.attack("pdg")


def test_what_does_not_fit_the_net():
    good = batch()
    cases = {
        "data.value_range": {"image": good.image * 2 - 1},
        "images of .* and the net is for": {"image": good.image.repeat(1, 3, 1, 1)},
        "the net knows 3 classes": {"label": good.label + 1},
        "labels go from -1": {"label": good.label - 1},
        "images go from nan": {"image": good.image * float("nan")},
    }
    for complaint, change in cases.items():
        with pytest.raises(ValueError, match=complaint):
            task(converged()).problem(good._replace(**change))


# by command


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, prepared) -> Path:
    """The checkpoint of three training steps on digits."""
    from tests.conftest import call

    folder = tmp_path_factory.mktemp("adversarial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JIIO_DATA", str(prepared))
        Path("small.yaml").write_text(SMALL)
        assert call("fit", *RUN) == 0
    return folder / "runs/digits_adversarial/checkpoints/last.ckpt"


def test_fit_and_test_write_their_metrics(jiio, fitted):
    (row,) = [row for row in metrics(fitted.parents[1]) if row["val/accuracy_jiio"]]
    assert {"val/accuracy_clean", "val/loss_clean", "val/loss_jiio", "val/unconverged_jiio"} <= set(row)
    Path("small.yaml").write_text(SMALL)
    assert jiio("test", *RUN, "--ckpt_path", fitted, "--model.attacks", '["jiio"]', "--data.test_limit", 12) == 0
    (row,) = metrics(Path("runs/digits_adversarial"))
    for name in ("clean", "jiio"):
        accuracy = float(row[f"test/accuracy_{name}"])
        low, high = share_interval(np.arange(12) < round(12 * accuracy))
        assert float(row[f"test/accuracy_{name}_low"]) == pytest.approx(low, abs=1e-6)
        assert float(row[f"test/accuracy_{name}_high"]) == pytest.approx(high, abs=1e-6)
    assert "test/accuracy_pgd" not in row
    assert float(row["test/loss_jiio"]) > float(row["test/loss_clean"]) + 0.1, "it attacks; found: 2.44 and 2.16"


@pytest.mark.parametrize("regime", ["adversarial_pgd", "adversarial_clean"])
def test_a_regime_is_one_line(jiio, regime):
    Path("small.yaml").write_text(SMALL.replace("{max_steps: 24}", "{}"))
    assert jiio("fit", *RUN, "--solver", REPO / f"conf/solver/{regime}.yaml", "--trainer.max_steps", 1) == 0
    rows = [row for row in metrics(Path("runs/digits_adversarial")) if row.get("train/trusted")]
    assert [float(row["train/trusted"]) > 0.7 for row in rows] == [True]


@pytest.mark.slow
def test_the_joint_attack_is_as_strong_as_pgd_at_equal_evaluations(tmp_path, monkeypatch):
    """On a trained classifier and 256 images, counting evaluations of f and backward passes through it alike.

    PGD with warm solves of 6 + 6 takes 20 * 12 of them; 110 joint steps take 220, and their warm start 10.
    """
    monkeypatch.setenv("JIIO_DATA", str(tmp_path))
    data = Digits(value_range=(0.0, 1.0), batch_size=64, eval_batch_size=256)
    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    net = ImageClassifier((8, 8), (1, 8, 8), expansion=1, head_width=4, features=32)
    solve = FixedPoint(Anderson(memory=6), 15)
    model = AdversarialTraining(net, eps=0.5, one_cycle=False)
    AugmentedDEQSolver(Nested(Normalised(0.0), solve, solve, max_steps=1), Joint()).setup(None, model, "fit")
    JacobianRegularization(0.01, 1, mode_coefficient=0.1).setup(None, model, "fit")
    model.log = lambda *_, **__: None
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(2):
        for given in data.train_dataloader():
            optimiser.zero_grad()
            model.training_step(given, 0).backward()
            optimiser.step()
    target = model.eval().target(next(iter(data.test_dataloader())))
    clean = target.judge(target.zero()).correct.float().mean()
    assert clean > 0.9
    short = FixedPoint(Anderson(memory=6), 6)
    pgd = PGD(20, forward=short, backward=short, warm=True)(target).verdict.correct.float().mean()
    step = Normalised(0.2, Settled(Cosine(), steps=10))
    attack = SolverAttack(Joint(step, max_steps=110), warm=FixedPoint(Anderson(memory=6), 10))
    joint = attack(target).verdict.correct.float().mean()
    assert pgd < clean - 0.1 and joint < pgd + 0.03, (clean, pgd, joint)
