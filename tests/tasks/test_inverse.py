"""Inverse problems: the inner and the outer loss, both outer gradients, and a generator re-used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from jiio_lightning.callbacks import JacobianRegularization
from jiio_lightning.core import Augmented, DualReuse, FixedInput, FullKKT, InnerProblem, Joint
from jiio_lightning.core.operators import Downsampling, GaussianNoise, Measurement, Operator, PixelMask, SquareMask
from jiio_lightning.core.outer import OuterGradient
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from jiio_lightning.data import ImageBatch
from jiio_lightning.models import Generator, LatentGenerator
from jiio_lightning.tasks import Generation, Inverse
from jiio_lightning.tasks.inverse import measure, recovery_metrics
from tests.core.problems import directional, equilibrium_of, polish
from tests.tasks.test_generation import batch, inject

FIXED = FixedInput(FixedPoint(Picard(), 200))
FULL = FullKKT(memory=40, restarts=4, tol=1e-12)


class TanhGenerator(Generator):
    """z = tanh(W z + U x + c), and images of 4x4 by a linear head of z and z^2: nonlinear, smooth."""

    def __init__(self, hidden: int = 5, latent: int = 3, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(hidden, hidden, generator=draw, dtype=torch.float64)
        self.cell = nn.Parameter(0.6 * weight / torch.linalg.matrix_norm(weight, 2))
        self.inject = nn.Parameter(0.7 * torch.randn(hidden, latent, generator=draw, dtype=torch.float64))
        self.bias = nn.Parameter(0.3 * torch.randn(hidden, generator=draw, dtype=torch.float64))
        self.head = nn.Parameter(0.3 * torch.randn(16, 2 * hidden, generator=draw, dtype=torch.float64))
        self.latent, self.image_shape, self._hidden = latent, (1, 4, 4), hidden

    @property
    def hidden(self) -> int:
        return self._hidden

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.cell.T + x @ self.inject.T + self.bias)

    def h(self, z: Tensor) -> Tensor:
        return (torch.cat([z, z.square()], dim=1) @ self.head.T).view(-1, 1, 4, 4)


SOLVED: dict[Operator, Augmented] = {}
"""What a case's solve found, so that each is solved once."""


class Case:
    """A supervised task in float64 on images near to what its net can make, and its inner problem's solution to the last bit."""

    def __init__(self, operator: Operator, outer: OuterGradient) -> None:
        torch.manual_seed(0)
        self.task = Inverse(TanhGenerator(), operator, outer=outer)
        solver = inject(self.task)
        solver.train = solver.test = Joint(Plain(0.03), max_steps=1500)
        net, x = self.task.net, 0.7 * torch.randn(3, 3, dtype=torch.float64)
        with torch.no_grad():
            z = equilibrium_of(InnerProblem(net.f, lambda z, x: z.sum(dim=1)), x, net.hidden)
            image = net.h(z) + 0.05 * torch.randn(3, 1, 4, 4)
        self.batch = ImageBatch(image, torch.zeros(3, dtype=torch.long), torch.arange(3))
        self.task.train()
        if operator not in SOLVED:
            SOLVED[operator] = self.task.inner(self.problem, Augmented(z, torch.zeros_like(z), x)).v
        self.rough = SOLVED[operator]
        self.v = self.solve()
        self.task.start = lambda batch: self.v  # type: ignore[method-assign]
        solver.train = Joint(Plain(0.0), max_steps=1)  # the solution stays where it is

    @property
    def problem(self) -> InnerProblem:
        return self.task.problem(self.batch)

    def solve(self) -> Augmented:
        """(z, mu, x) by Newton's method at the present weights: no code of the package's solvers."""
        return polish(self.problem, self.rough, steps=30)

    def clean(self, z: Tensor) -> Tensor:
        """The error to the clean images, written out: a mean over samples of a mean over pixels."""
        return (self.task.net.h(z) - self.batch.image).square().mean()

    def re_solved(self) -> Tensor:
        """All of z, mu and x follow the weights."""
        return self.clean(self.solve().z).detach()

    def x_frozen(self) -> Tensor:
        """Only z follows."""
        return self.clean(equilibrium_of(self.problem, self.v.x, self.task.net.hidden)).detach()


@pytest.fixture
def double_precision():
    """For the references, which make tensors of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["cell", "inject", "head"])
@pytest.mark.parametrize("operator", [SquareMask(0.5), GaussianNoise(0.3)], ids=["mask", "noise"])
@pytest.mark.parametrize("outer", ["fixed", "full"])
def test_the_gradient_of_a_training_step(double_precision, outer: str, operator: Operator, name: str):
    """Against central differences that solve again: z alone at the frozen x* (Eq. 7, 9), or z, mu and x (Eq. 16-17)."""
    case = Case(operator, FIXED if outer == "fixed" else FULL)
    weight = getattr(case.task.net, name)
    direction = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad(case.task.training_step(case.batch, 0), weight)
    ours = (gradient * direction).sum()
    solved, frozen = (directional(value, weight, direction, 1e-4) for value in (case.re_solved, case.x_frozen))
    assert (solved - frozen).abs() > 1e-3 * solved.abs(), "the two are to be told apart"
    torch.testing.assert_close(ours, frozen if outer == "fixed" else solved, rtol=1e-5, atol=1e-10)


def task(operator: Operator, **options) -> Inverse:
    torch.manual_seed(0)
    return Inverse(LatentGenerator(3, (8, 8), (1, 8, 8), expansion=1), operator, **options)


def test_the_inner_loss_does_not_see_the_hole_and_the_outer_one_does():
    model, given = task(SquareMask(), loss_scale=3.0), batch()
    z, x = torch.randn(4, model.net.hidden), torch.zeros(4, 3)
    seen = model.measurement(given).seen
    other = given._replace(image=torch.where(seen, given.image, 0.7))
    gap = (model.net.h(z) - given.image).square()
    inner = model.problem(given).loss(z, x)
    torch.testing.assert_close(inner, 3 * (gap * seen).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(model.problem(other).loss(z, x), inner)
    outer = [model.outer_loss(images, model.problem(images))(z, x) for images in (given, other)]
    torch.testing.assert_close(outer[0], 3 * gap.sum(dim=(1, 2, 3)))
    assert (outer[0] - outer[1]).abs().min() > 1e-2


def test_the_inner_loss_is_a_sum_over_measurements():
    model, given = task(Downsampling(4)), batch()
    z = torch.randn(4, model.net.hidden)
    blocks = (model.net.h(z) - given.image).view(4, 2, 4, 2, 4).mean(dim=(2, 4))
    wanted = blocks.square().sum(dim=(1, 2))
    torch.testing.assert_close(model.problem(given).loss(z, torch.zeros(4, 3)), wanted)


def test_metrics_of_merit_are_per_image():
    model, given = task(PixelMask(0.5)), batch()
    z = torch.randn(4, model.net.hidden)
    metrics = model.evaluate(given, model.problem(given), z, torch.zeros(4, 3))
    gap, seen = (model.net.h(z) - given.image).square(), model.measurement(given).seen
    wanted = gap.mean(dim=(1, 2, 3))
    torch.testing.assert_close(metrics["error"], wanted)
    torch.testing.assert_close(metrics["psnr"], 10 * torch.log10(4 / wanted))
    for i in range(4):
        assert metrics["error_inside"][i].item() == pytest.approx(gap[i][~seen[i]].mean().item(), rel=1e-5)
        assert metrics["error_outside"][i].item() == pytest.approx(gap[i][seen[i]].mean().item(), rel=1e-5)
    shown = (given.image * seen - given.image).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(metrics["psnr_input"], 10 * torch.log10(4 / shown))
    assert "error_inside" not in task(GaussianNoise()).evaluate(given, model.problem(given), z, torch.zeros(4, 3))


def test_errors_in_and_around_a_hole_are_means_over_all_channels():
    image, target = 2 * torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    given = ImageBatch(target, torch.zeros(2), torch.arange(2))
    metrics = recovery_metrics(measure(SquareMask(0.5), given, seed=0), image, target)
    seen = measure(SquareMask(0.5), given, seed=0).seen.expand_as(image)
    for i, gap in enumerate((image - target).square()):
        assert metrics["error_inside"][i].item() == pytest.approx(gap[~seen[i]].mean().item(), rel=1e-5)
        assert metrics["error_outside"][i].item() == pytest.approx(gap[seen[i]].mean().item(), rel=1e-5)


def test_the_noise_on_the_input_has_the_psnr_of_its_deviation():
    """64 images of 64 pixels know the deviation to 1 / sqrt(2 * 4096), of which three are allowed."""
    model, given = task(GaussianNoise(0.2)), batch(64)
    metrics = model.evaluate(given, model.problem(given), torch.zeros(64, model.net.hidden), torch.zeros(64, 3))
    noise = (4 / 10 ** (metrics["psnr_input"] / 10)).mean().sqrt().item()
    assert noise == pytest.approx(0.2, rel=3 / math.sqrt(2 * 4096))


def test_a_measurement_is_a_function_of_seed_and_index():
    """Not of the batch, nor of the global generator, nor of the step."""
    given, order = batch(6), torch.tensor([4, 1, 5])
    for operator in (SquareMask(0.3), GaussianNoise(0.2, of=PixelMask(0.5))):
        model, other = task(operator, seed=3), task(operator, seed=4)
        whole = model.measurement(given)
        torch.rand(7)
        part = model.measurement(ImageBatch(given.image[order], given.label[order], given.index[order]))
        assert part.y.equal(whole.y[order]) and part.seen.equal(whole.seen[order])
        assert not other.measurement(given).y.equal(whole.y)
        assert len({tuple(row.flatten().tolist()) for row in whole.seen}) > 1


def test_the_residual_of_the_linear_solve_is_logged():
    for outer, there in ((FIXED, True), (FullKKT(memory=5, restarts=1), True), (None, False)):
        model = task(SquareMask(), outer=outer)
        inject(model)
        logged: dict[str, Tensor] = {}
        model.log = lambda name, value, logged=logged, **_: logged.update({name: value})
        model.training_step(batch(), 0)
        assert ("train/residual_outer" in logged) is there
        assert not there or logged["train/residual_outer"] < 1
        assert logged["train/error"] > 0


def test_a_measurement_of_another_shape_is_not_spread_over_the_batch():
    class Grey(Operator):
        def measure(self, image: Tensor, generators) -> Measurement:
            return Measurement(image.mean(dim=1), lambda made: made.mean(dim=1, keepdim=True), image)

    given = digits(3)
    problem = task(Grey()).problem(given)
    with pytest.raises(ValueError, match=r"the operator's apply has to return \(3, 8, 8\) for a batch, not \(3, 1, 8, 8\)"):
        problem.evaluate(task(Grey()).start(given))
    model = task(SquareMask())
    whole = model.net.h
    model.net.h = lambda z: whole(z).squeeze(1)
    v = model.start(given)
    with pytest.raises(ValueError, match="the net's h has to return"):
        model.outer_loss(given, model.problem(given))(v.z, v.x)


def test_dual_reuse_is_refused():
    with pytest.raises(ValueError, match="not the inner loss. Set model.outer to FixedInput or FullKKT"):
        task(SquareMask(), outer=DualReuse())


def adopted(generator: Generation, operator: Operator) -> Inverse:
    """An unsupervised task with a trained generator's weights, by its checkpoint's keys."""
    made = Inverse(LatentGenerator(8, (8, 16), (1, 8, 8), expansion=1), operator)
    made.load_state_dict(generator.state_dict())
    return made.eval()


def digits(count: int, start: int = 0) -> ImageBatch:
    from sklearn.datasets import load_digits

    image = torch.tensor(load_digits().images[start : start + count], dtype=torch.float32).unsqueeze(1) / 8 - 1
    return ImageBatch(image, torch.zeros(count, dtype=torch.long), torch.arange(start, start + count))


@pytest.mark.slow
def test_a_trained_generator_fills_a_hole():
    """A few steps of Generation, then Eq. 22: the hole is nearer to the truth than 0 or black, and the picture shows it."""
    torch.manual_seed(0)
    generator = Generation(LatentGenerator(8, (8, 16), (1, 8, 8), expansion=1))
    inject(generator, steps=25)
    JacobianRegularization(coefficient=0.03, probes=1, mode_coefficient=0.1).setup(None, generator, "fit")
    generator.train()
    optimiser = torch.optim.Adam(generator.parameters(), lr=5e-3)
    for step in range(50):
        optimiser.zero_grad()
        generator.training_step(digits(16, 16 * step), step).backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 0.1)
        optimiser.step()
    given = digits(60, 1600)
    model = adopted(generator, SquareMask())
    inject(model, steps=40)
    found = model.test_step(given, 0)
    hole = ~model.measurement(given).seen
    left, black = (((value - given.image).square() * hole).sum() / hole.sum() for value in (0.0, -1.0))
    assert found["error_inside"].mean() < 0.8 * min(left, black), (found["error_inside"].mean(), left, black)
    assert found["psnr"].shape == (60,) and found["index"].equal(given.index)
    panels = model.panels(given)
    assert list(panels) == ["corrupted", "recovered", "original"]
    assert (panels["corrupted"][hole] == 0).all() and panels["original"].equal(given.image)
    recovered = (panels["recovered"] - given.image).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(recovered, found["error"], rtol=1e-3, atol=1e-5)


INVERSE = """\
trainer:
  callbacks: [{class_path: ImageGrid, init_args: {count: 4, enlarge: 1}}, PredictionWriter, SampleMetrics]
model:
  class_path: jiio_lightning.tasks.Inverse
  init_args:
    operator: {class_path: jiio_lightning.core.operators.SquareMask}
"""
SUPERVISED = """\
    outer:
      class_path: jiio_lightning.core.FixedInput
      init_args: {solver: {method: jiio_lightning.core.solvers.Picard, max_steps: 20}}
"""


@pytest.fixture
def inverse(jiio):
    """The command for ``inverse.yaml``, the tiny run file with an operator; ``supervised=True``: with an outer gradient."""

    def call(command: str, *args: object, supervised: bool = False) -> int:
        text = yaml.safe_load(Path("tiny.yaml").read_text())
        more = yaml.safe_load(INVERSE + (SUPERVISED if supervised else ""))
        text["trainer"] |= more["trainer"]
        text["model"] = more["model"] | {"init_args": text["model"]["init_args"] | more["model"]["init_args"]}
        Path("inverse.yaml").write_text(yaml.safe_dump(text))
        return jiio(command, "--config", "inverse.yaml", *args)

    return call


def test_a_generators_checkpoint_is_taken_as_it_is(inverse, checkpoint):
    """By the joint solver and by Nested Adam: metrics, medians, pictures."""
    from tests.callbacks.test_pictures import tiles

    assert inverse("test", "--ckpt_path", checkpoint) == 0
    shown = tiles(Path("runs/inverse/images/test.png"), side=8, columns=4, rows=3)
    hole = abs(shown[0]) < 0.01
    assert (hole.sum(axis=(1, 2)) >= 9).all() and abs(shown[0] - shown[2])[~hole].max() < 0.01
    header = Path("runs/inverse/samples_test.csv").read_text().splitlines()[0].split(",")
    assert {"index", "psnr", "psnr_input", "error", "error_inside", "error_outside"} <= set(header)
    nested = Path(__file__).parents[2] / "conf/solver/nested.yaml"
    few = ("--solver.test.max_steps", 2, "--data.test_limit", 4)
    assert inverse("test", "--ckpt_path", checkpoint, "--solver", nested, *few) == 0


def test_an_unsupervised_task_cannot_be_trained(inverse, capsys):
    assert inverse("fit") == 1
    assert "an unsupervised inverse problem has nothing to train" in capsys.readouterr().err


def test_images_of_another_range_are_refused(inverse, capsys):
    assert inverse("fit", "--data.value_range", "[0.0, 1.0]", supervised=True) == 1
    assert "images in [-1, 1], the data's are in [0.0, 1.0]: set data.value_range" in capsys.readouterr().err
