"""Meta-learning: packing, both parts of the outer gradient, and episodes that do not fit."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Augmented, FixedInput, FullKKT, InnerProblem, Joint
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from jiio_lightning.data import EpisodeBatch
from jiio_lightning.models import ConditionalClassifier, FiLMClassifier
from jiio_lightning.tasks import MetaLearning
from tests.conftest import REPO
from tests.core.problems import directional, equilibrium_of, polish

FIXED = FixedInput(FixedPoint(Picard(), 300))
FULL = FullKKT(memory=60, restarts=6, tol=1e-12)


class TanhLearner(ConditionalClassifier):
    """z = tanh(W z + diag(1 + G x) V s + U x), logits H [z, z^2], of images of 2x2: smooth, and x multiplies the image."""

    def __init__(self, hidden: int = 4, task: int = 3, ways: int = 3, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=draw, dtype=torch.float64))

        self.cell, self.gain, self.drive = (
            normal(hidden, hidden, scale=0.2),
            normal(hidden, task, scale=0.6),
            normal(hidden, task, scale=0.4),
        )
        self.image, self.head = normal(hidden, 4, scale=0.7), normal(ways, 2 * hidden, scale=0.8)
        self.task, self.num_classes, self.image_shape, self._hidden = task, ways, (1, 2, 2), hidden

    @property
    def hidden(self) -> int:
        return self._hidden

    def inject(self, image: Tensor) -> Tensor:
        return image.flatten(1) @ self.image.T

    def f(self, z: Tensor, x: Tensor, injection: Tensor) -> Tensor:
        return torch.tanh(z @ self.cell.T + (1 + x @ self.gain.T) * injection + x @ self.drive.T)

    def h(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.cat([z * (1 + 0.5 * x.sum(dim=1, keepdim=True)), z.square()], dim=1) @ self.head.T


def episodes(tasks: int = 2, ways: int = 3, shots: int = 1, queries: int = 2, side: int = 2, dtype=torch.float64) -> EpisodeBatch:
    draw = torch.Generator().manual_seed(1)

    def images(each: int) -> tuple[Tensor, Tensor]:
        label = torch.arange(ways).repeat_interleave(each).expand(tasks, -1)
        return torch.randn(tasks, ways * each, 1, side, side, generator=draw, dtype=dtype), label

    return EpisodeBatch(*images(shots), *images(queries), torch.arange(tasks))


def inject(task: MetaLearning, solver: Joint) -> AugmentedDEQSolver:
    resolve = FixedPoint(Picard(), max_steps=400, tol=1e-13)
    injected = AugmentedDEQSolver(solver, solver, resolve, trust_tol=10)
    injected.setup(None, task, "fit")
    task.log = lambda *args, **kwargs: None
    return injected


@pytest.fixture
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Case:
    """A task in float64 with its inner solution to the last bit, which training_step is handed."""

    def __init__(self, through: FullKKT | None, weight: float = 0.0) -> None:
        self.task, self.batch = MetaLearning(TanhLearner(), FIXED, through, support_weight=weight, penalty=0.4), episodes()
        self.task.queries = FixedPoint(Picard(), 400)
        solver = inject(self.task, Joint(Plain(0.3), max_steps=600))
        self.task.train()
        self.rough = self.task.inner(self.problem, self.task.start(self.batch)).v
        self.v = self.solve()
        self.task.start = lambda batch: self.v  # type: ignore[method-assign]
        solver.train = Joint(Plain(0.0), max_steps=1)

    @property
    def problem(self) -> InnerProblem:
        return self.task.problem(self.batch)

    def solve(self) -> Augmented:
        return polish(self.problem, self.rough, steps=30)

    def query_loss(self, x: Tensor) -> Tensor:
        """Written out image by image, each z re-solved."""
        net, losses = self.task.net, []
        for t, (images, labels) in enumerate(zip(self.batch.query, self.batch.query_label, strict=True)):
            for image, label in zip(images, labels, strict=True):
                cell = InnerProblem(lambda z, x, image=image: net.f(z, x, net.inject(image[None])), lambda z, x: z.sum(dim=1))
                z = equilibrium_of(cell, x[t : t + 1], net.hidden)
                losses.append(F.cross_entropy(net.h(z, x[t : t + 1]), label[None]))
        return torch.stack(losses).mean().detach()

    def optimum(self) -> Tensor:
        """The inner optimum, mean over tasks, re-solved."""
        v = self.solve()
        return self.problem.loss(v.z, v.x).mean().detach()


def gradient_along(case: Case, name: str) -> tuple[Tensor, Tensor, Tensor]:
    weight = getattr(case.task.net, name)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=weight.dtype)
    (gradient,) = torch.autograd.grad(case.task.training_step(case.batch, 0), weight)
    return weight, direction, (gradient * direction).sum()


@pytest.mark.parametrize("name", ["cell", "gain", "image", "head"])
def test_the_gradient_of_a_training_step(double_precision, name: str):
    """Against central differences that re-solve: the query images' z alone at the frozen x*, or x* as well (Eq. 16-17)."""
    case, through = Case(None), Case(FULL)
    weight, direction, fixed = gradient_along(case, name)
    frozen = directional(lambda: case.query_loss(case.v.x), weight, direction, 1e-4)
    solved = directional(lambda: case.query_loss(case.solve().x), weight, direction, 1e-4)
    assert (solved - frozen).abs() > 1e-3 * solved.abs(), "the two are to be told apart"
    torch.testing.assert_close(fixed, frozen, rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(gradient_along(through, name)[2], solved, rtol=1e-5, atol=1e-10)


def test_the_support_term_is_the_gradient_of_the_inner_optimum(double_precision):
    """Eq. 19: no linear solve, and yet through x*."""
    plain, rewarded = Case(None), Case(None, weight=0.7)
    weight, direction, without = gradient_along(plain, "gain")
    _, _, ours = gradient_along(rewarded, "gain")
    torch.testing.assert_close(ours - without, 0.7 * directional(plain.optimum, weight, direction, 1e-4), rtol=1e-5, atol=1e-10)


def test_one_x_for_the_images_of_a_task_and_none_of_another():
    """The packed problem against a loop over tasks and images: the loss, and every row of Eq. 14."""
    task, batch, net = MetaLearning(TanhLearner(), FIXED, penalty=0.3), episodes(3, shots=2), TanhLearner()
    problem, images, n = task.problem(batch), 6, net.hidden
    v = Augmented(*(torch.randn(3, width, dtype=torch.float64) for width in (images * n, images * n, 3)))
    packed = problem.evaluate(v)
    for t in range(3):
        z, mu, x = v.z[t].view(images, n), v.mu[t].view(images, n), v.x[t].clone().requires_grad_()
        z.requires_grad_()
        rows = [net.f(z[i : i + 1], x[None], net.inject(batch.support[t, i : i + 1])) for i in range(images)]
        losses = [F.cross_entropy(net.h(z[i : i + 1], x[None]), batch.support_label[t, i : i + 1]) for i in range(images)]
        loss = torch.stack(losses).mean() + 0.3 * x.square().mean()
        pulled = loss + sum((mu[i] * (rows[i][0] - z[i])).sum() for i in range(images))
        dz, dx = torch.autograd.grad(pulled, (z, x))
        torch.testing.assert_close(packed.loss[t], loss.detach())
        torch.testing.assert_close(packed.gradient.mu[t], (torch.cat(rows) - z).detach().flatten())
        torch.testing.assert_close(packed.gradient.z[t], dz.flatten())
        torch.testing.assert_close(packed.gradient.x[t], dx)


def learner(**options) -> MetaLearning:
    torch.manual_seed(0)
    return MetaLearning(FiLMClassifier(9, (8, 8), (1, 8, 8), 3, expansion=1, head_width=4, features=16), FIXED, **options)


def test_every_weight_is_trained(monkeypatch):
    """Those behind a weight norm too: a solve without a graph must not have filled the cache that the gradient goes through."""
    task = learner(support_weight=1.0)
    inject(task, Joint(max_steps=6))
    task.regularizer = JacobianRegularization(0.1, probes=1)
    monkeypatch.setattr(MetaLearning, "global_step", 0)
    task.training_step(episodes(side=8, dtype=torch.float32), 0).backward()
    still = [name for name, weight in task.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert not still


def test_the_start_is_near_the_equilibrium_at_x_0():
    """At z = 0 the head's group norms see no variance, and the first dual is enormous once their biases have moved."""
    task, batch = learner(), episodes(side=8, dtype=torch.float32)
    inject(task, Joint(max_steps=6))
    for weight in task.net.base.head.parameters():
        weight.data += 1e-2 * torch.randn_like(weight)
    problem, start = task.problem(batch), task.start(batch)
    z, _ = task.injected.resolve(problem, start.x, start.hidden)
    assert (start.z - z).norm() < 0.2 * z.norm()
    x = torch.randn_like(start.x)  # at x = 0 all logits are 0
    slope = [problem.gradients(Augmented(z0, torch.zeros_like(z), x)).z.norm() for z0 in (start.z, torch.zeros_like(z))]
    assert slope[1] > 100 * slope[0]


def test_query_labels_are_not_looked_at():
    task, batch = learner(), episodes(side=8, dtype=torch.float32)
    inject(task, Joint(max_steps=6))
    first, other = (task.predict_step(given, 0) for given in (batch, batch._replace(query_label=batch.query_label.flip(1))))
    assert torch.equal(first["logits"], other["logits"]) and torch.equal(first["x"], other["x"])


def test_a_task_whose_queries_have_no_equilibrium_gives_no_gradient(monkeypatch):
    """Nor a NaN to the others."""
    task, batch = learner(), episodes(side=8, dtype=torch.float32)
    inject(task, Joint(max_steps=6)).trust_tol = 5.0
    monkeypatch.setattr(MetaLearning, "global_step", 0)
    follow = task.follow

    def spoilt(batch: EpisodeBatch, x: Tensor) -> tuple[Augmented, Tensor]:
        v, residual = follow(batch, x)
        v.z[0], residual[0] = torch.nan, torch.inf
        return v, residual

    monkeypatch.setattr(task, "follow", spoilt)
    loss = task.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(weight.grad).all() for weight in task.parameters())


def test_a_linear_system_that_is_not_solved_is_said_once():
    task, batch = learner(through_input=FullKKT(memory=2, restarts=1)), episodes(side=8, dtype=torch.float32)
    inject(task, Joint(max_steps=6))
    with pytest.warns(UserWarning, match="gradient through x. is not solved"):
        task.training_step(batch, 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the gradient through")
        task.training_step(batch, 0)


def test_a_task_whose_linear_system_is_not_solved_goes_without_it():
    """Its gradient is the one with x* held fixed; solved ones have another."""
    batch, found = episodes(side=8, dtype=torch.float32), []
    for through in (None, FullKKT(memory=1, restarts=1), FullKKT(memory=60, restarts=2, ridge=10.0)):
        task = learner(through_input=through)
        inject(task, Joint(max_steps=12))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task.training_step(batch, 0).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in task.net.parameters() if weight.grad is not None]))
    fixed, unsolved, solved = found
    torch.testing.assert_close(unsolved, fixed)
    assert float((solved - fixed).norm() / fixed.norm()) > 1e-3


def test_metrics_are_of_each_task():
    task, batch = learner(), episodes(side=8, dtype=torch.float32)
    inject(task, Joint(max_steps=6))
    metrics = task.test_step(batch, 0)
    prediction = task.predict_step(batch, 0)
    right = prediction["logits"].argmax(dim=2) == batch.query_label
    torch.testing.assert_close(metrics["accuracy"], right.float().mean(dim=1))
    losses = F.cross_entropy(prediction["logits"].flatten(0, 1), batch.query_label.flatten(), reduction="none").view(2, -1)
    torch.testing.assert_close(metrics["loss"], losses.mean(dim=1), rtol=1e-4, atol=1e-5)
    assert {"support_accuracy", "support_loss", "query_residual", "resolve_residual", "index"} <= metrics.keys()


def test_each_residual_is_logged_under_one_name():
    task, logged = learner(), set()
    inject(task, Joint(max_steps=6))
    task.log = lambda name, value, **_: logged.add(name)
    task.training_step(episodes(side=8, dtype=torch.float32), 0)
    assert {"train/residual_followed", "train/residual_adjoint"} <= logged and "train/residual_outer" not in logged


def test_episodes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"model.net.image_shape"):
        learner().problem(episodes(side=4))
    with pytest.raises(ValueError, match=r"5 classes: set model.net.num_classes"):
        learner().problem(episodes(ways=5, side=8))


@pytest.mark.slow
def test_training_leaves_chance(jiio):
    """40 steps of the committed run file on real digits: query images of the training digits; chance is a fifth."""
    steps = ("--trainer.max_steps", "40", "--trainer.val_check_interval", "40", "--trainer.limit_val_batches", "0")
    assert jiio("fit", "--config", REPO / "tasks/digits_meta.yaml", *steps) == 0
    with next(Path().rglob("metrics.csv")).open() as file:
        accuracy = [float(row["train/accuracy"]) for row in csv.DictReader(file) if row.get("train/accuracy")]
    assert len(accuracy) == 4 and accuracy[-1] > 0.7, accuracy
