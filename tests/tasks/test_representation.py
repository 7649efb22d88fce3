"""A representation against the exact equilibrium of a one-layer iMFN, which is affine in z; and its runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.data.signals import ImageSignal, SignalBatch
from jiio_lightning.models import IMFN, MFN
from jiio_lightning.models.lipschitz import tighten
from jiio_lightning.tasks import Representation, WarmStart
from jiio_lightning.tasks.representation import signal_metrics
from jiio_lightning.tasks.warm_start import Cache
from tests.conftest import metrics

EXACT = FixedPoint(Picard(), 400, tol=1e-14)
RUN = """\
trainer:
  accelerator: cpu
  devices: 1
  max_steps: 6
  val_check_interval: 3
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [SignalPictures]
model:
  class_path: jiio_lightning.tasks.Representation
  init_args:
    net: {class_path: jiio_lightning.models.IMFN, init_args: {width: 16, scale: 16}}
    learning_rate: 1.0e-2
data: {class_path: jiio_lightning.data.ImageSignal, init_args: {path: photo.png, stride: 2}}
"""


@pytest.fixture
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch_of(points: int = 5) -> SignalBatch:
    return SignalBatch(torch.rand(points, 2) * 2 - 1, torch.randn(points, 3), torch.arange(points), points)


def task_of(**options) -> Representation:
    task = Representation(IMFN(width=7, scale=6.0), forward=EXACT, **options)
    task.log = task.log_dict = lambda *args, **kwargs: None  # no trainer
    return task


def system(net: IMFN, c: Tensor) -> tuple[Tensor, Tensor]:
    """J ``(N, D, D)`` and the constant ``(N, D)`` of f(z) = J z + constant."""
    g0, g1 = net.inject(c).chunk(2, dim=1)
    return g1.unsqueeze(2) * net.linears[0].weight, g1 * (net.linears[0].weight @ g0.T + net.linears[0].bias[:, None]).T


def gradient(task: Representation, batch: SignalBatch) -> Tensor:
    task.zero_grad()
    task.training_step(batch, 0).backward()
    task.cache.commit()  # as after the optimiser's step
    return task.net.linears[0].bias.grad.clone()


@pytest.mark.parametrize("order", [0, 1, 2, 3, "converged"])
def test_the_gradient_of_each_order_is_the_series_with_explicit_jacobians(float64, order):
    task, batch = task_of(order=order), batch_of()
    jacobian, constant = (part.detach() for part in system(task.net, batch.c))
    z = torch.linalg.solve(torch.eye(7) - jacobian, constant)
    head = task.net.head
    cotangent = 2 / batch.values.numel() * (task.net.h(z) - batch.values).detach() @ head.weight.detach()
    if order == "converged":
        mu = torch.linalg.solve(torch.eye(7) - jacobian.mT, cotangent)
    else:
        powers = [torch.linalg.matrix_power(jacobian.mT, k) for k in range(order + 1)]
        mu = (sum(powers) @ cotangent.unsqueeze(2)).squeeze(2)
    expected = (mu * task.net.filters[1](batch.c).detach()).sum(0)  # df/db = g1
    tolerance = {"rtol": 1e-3, "atol": 1e-6} if order == "converged" else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(gradient(task, batch), expected, **tolerance)


def test_a_warm_start_is_one_evaluation_from_the_last_steps_z(float64):
    task, batch = task_of(warm_start=WarmStart(tol=None)), batch_of()
    gradient(task, batch)
    jacobian, constant = (part.detach() for part in system(task.net, batch.c))
    z = torch.linalg.solve(torch.eye(7) - jacobian, constant)
    torch.testing.assert_close(task.cache.z, z, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        for parameter in task.net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    tighten(task.net)
    jacobian, constant = (part.detach() for part in system(task.net, batch.c))
    gradient(task, batch)
    once = (jacobian @ z.unsqueeze(2)).squeeze(2) + constant
    torch.testing.assert_close(task.cache.z, once, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(task.cache.residual, (once - z).norm() / once.norm())


def test_the_budget_follows_the_residual():
    cache, index, z = Cache(WarmStart(tol=0.1, max_steps=2)), torch.arange(3), torch.ones(3, 2)
    budgets = []
    for residual in (0.0, 0.5, 0.5, 0.5, 0.07, 0.01, 0.01):
        budgets.append(cache.start(index, 3, 2)[1])
        cache.keep(index, z, torch.tensor(residual))
        cache.commit()
    assert budgets == [None, 0, 1, 2, 2, 2, 1]


def test_sampled_points_are_solved_in_full_until_they_have_been_seen():
    cache = Cache(WarmStart())
    assert cache.start(torch.tensor([0, 2]), 4, 1)[1] is None
    cache.keep(torch.tensor([0, 2]), torch.tensor([[5.0], [7.0]]), torch.tensor(0.0))
    cache.commit()
    z, evaluations = cache.start(torch.tensor([0, 1]), 4, 1)
    assert z.flatten().tolist() == [5.0, 0.0] and evaluations is None, "what is known is where the solve begins"
    z, evaluations = cache.start(torch.tensor([2, 0]), 4, 1)
    assert z.flatten().tolist() == [7.0, 5.0] and evaluations == 0


def test_as_many_draws_as_there_are_points_are_not_all_points_in_order():
    cache, draws = Cache(WarmStart()), torch.tensor([2, 0, 2])
    cache.start(draws, 3, 1)
    cache.keep(draws, torch.tensor([[7.0], [5.0], [7.0]]), torch.tensor(0.0))
    cache.commit()
    assert cache.z.flatten().tolist() == [5.0, 0.0, 7.0] and cache.start(torch.tensor([0, 1, 2]), 3, 1)[1] is None
    whole, drawn = (ImageSignal(size=4, batch_size=size).batch(0) for size in (None, 4 * 6))
    assert whole.whole and not drawn.whole and len(whole.index) == len(drawn.index)


def test_new_points_in_each_step_have_no_cache():
    batch = batch_of()._replace(index=torch.zeros(0, dtype=torch.int64), total=0)
    with pytest.raises(ValueError, match="set model.warm_start to null"):
        task_of().training_step(batch, 0)
    task_of(warm_start=None).training_step(batch, 0)


def test_an_explicit_net_needs_no_solve():
    task = Representation(MFN(width=7))
    task.log = task.log_dict = lambda *args, **kwargs: None
    batch = batch_of()
    task.training_step(batch, 0).backward()
    assert task.cache is None
    assert task.render(batch.c).equal(task.net.values(batch.c, solve=None))


def test_psnr_is_of_clamped_values():
    target = torch.tensor([[0.0], [1.0]])
    metrics = signal_metrics(torch.tensor([[0.2], [7.0]]), target, ())
    assert metrics["psnr"].item() == pytest.approx(10 * np.log10(4 / 0.02), rel=1e-5)
    frames = signal_metrics(torch.zeros(2 * 12 * 12, 3), torch.ones(2 * 12 * 12, 3), (2, 12, 12))
    assert set(frames) == {"error", "psnr", "psnr_std", "ssim"} and frames["psnr_std"] == 0


@pytest.fixture
def run(jiio):
    Path("repr.yaml").write_text(RUN)
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save("photo.png")
    return lambda command, *words: jiio(command, "--config", "repr.yaml", *words)


def test_a_photo_is_learned_tested_and_made_larger(run, caplog):
    assert run("fit") == 0
    assert "the cell is a contraction: its Lipschitz constant in z is at most 0.97" in caplog.text
    assert "warm start: z of 192 coordinates x 16" in caplog.text
    rows = metrics(Path("runs/repr"))
    assert {"train/loss", "train/psnr", "train/residual_z", "train/evaluations", "val/psnr", "val/ssim", "val/residual_z"} <= set(
        rows[0]
    )
    assert Image.open("runs/repr/images/val_0000006.png").size[0] > 100
    last = ("--ckpt_path", "runs/repr/checkpoints/last.ckpt")
    assert run("test", *last) == 0 and Path("runs/repr/images/test.png").exists()
    assert run("predict", *last, "--data.zoom", 2.5) == 0
    assert Image.open("runs/repr/predictions/reconstruction.png").size == (80, 60)
    assert not Path("runs/repr/predictions/predictions.npz").exists()


@pytest.mark.parametrize("batch_size", [None, 50])
def test_a_resumed_fit_is_the_fit_cache_included(run, batch_size):
    every = "pytorch_lightning.callbacks.ModelCheckpoint"
    words = () if batch_size is None else ("--data.batch_size", batch_size)
    save = (f"--trainer.callbacks+={every}", "--trainer.callbacks.dirpath=every", "--trainer.callbacks.every_n_train_steps=1")
    assert run("fit", *words, *save, "--trainer.callbacks.save_top_k=-1") == 0
    last = Path("runs/repr/checkpoints/last.ckpt")
    whole = torch.load(last, weights_only=True)
    assert whole["warm_start"]["z"].shape == (12 * 16, 16) and whole["warm_start"]["z"].abs().max() > 0
    assert run("fit", *words, "--ckpt_path", "every/epoch=0-step=4.ckpt") == 0
    resumed = torch.load(last, weights_only=True)
    assert all(tensor.equal(resumed["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    for name, value in whole["warm_start"].items():
        assert torch.equal(torch.as_tensor(resumed["warm_start"][name]), torch.as_tensor(value)), name


def test_a_fit_that_ends_within_a_step_goes_on_as_the_fit(run, monkeypatch):
    assert run("fit") == 0
    last = Path("runs/repr/checkpoints/last.ckpt")
    whole = torch.load(last, weights_only=True)
    backward = Representation.backward

    def fails(task: Representation, *args: object) -> None:
        if task.global_step == 4:
            raise MemoryError("no memory left")
        backward(task, *args)

    monkeypatch.setattr(Representation, "backward", fails)
    with pytest.raises(MemoryError):
        run("fit", "--overwrite")
    assert torch.load(last, weights_only=True)["global_step"] == 4
    monkeypatch.setattr(Representation, "backward", backward)
    assert run("fit", "--ckpt_path", "last") == 0
    resumed = torch.load(last, weights_only=True)
    assert all(tensor.equal(resumed["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    assert resumed["warm_start"]["z"].equal(whole["warm_start"]["z"])


def test_a_run_does_not_go_on_with_another_picture(run, capsys):
    assert run("fit") == 0
    Image.fromarray(np.zeros((24, 32, 3), dtype=np.uint8)).save("photo.png")
    assert run("fit", "--ckpt_path", "last", "--trainer.max_steps", 8) == 1
    assert "a run goes on with the data that it began with" in capsys.readouterr().err
    assert run("fit", "--overwrite", "--trainer.max_steps", 1) == 0
    assert run("fit", "--ckpt_path", "last", "--data.batch_size", 50) == 1
    assert "batches of 0 (now 50)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "net", ["IMFN", "IMFN --model.net.init_args.filters gabor", "ISIREN", "InjectedSIREN", "SIREN", "FourierFeatures"]
)
def test_training_in_mixed_precision_is_near_that_in_float32(run, net):
    name, *options = net.split()
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        words = ("--model.net", f"jiio_lightning.models.{name}", "--model.net.init_args.width", 16, *options)
        assert run("fit", *words, "--trainer.precision", precision, "--overwrite") == 0
        losses.append([float(row["train/loss"]) for row in metrics(Path("runs/repr")) if row["train/loss"]])
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[0] != losses[1]


def test_a_fit_that_diverges_says_so(run, capsys):
    assert run("fit", "--model.learning_rate", "1e30") == 1
    said = capsys.readouterr().err
    assert "not finite" in said and "Traceback" not in said


@pytest.mark.parametrize("command", ["compare", "sample", "attack", "learn_start"])
def test_commands_for_inner_problems_are_one_line(run, capsys, command):
    torch.save({"state_dict": Representation(IMFN(width=16)).state_dict()}, "weights.ckpt")
    assert run(command, "--ckpt_path", "weights.ckpt") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Representation" in line and "Traceback" not in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--solver", "SOLVER"), "error: Representation optimises no input, so that it has no inner solver: leave out `solver`"),
        (("--jacobian.coefficient", "0.3"), "error: Representation bounds its cell by model.net.bound: leave out `jacobian`"),
        (("--data.grey", "true"), "error: the signal has 2 coordinates and 1 channels, the net is for 2 and 3"),
        (("--model.occupancy", "true"), "error: these data need model.occupancy: false"),
        (("--data.path", "none.png"), "none.png: set data.path to an image file"),
    ],
)
def test_what_does_not_apply_is_one_line(run, capsys, words, line):
    words = [word.replace("SOLVER", str(Path(__file__).parents[2] / "conf/solver/joint.yaml")) for word in words]
    assert run("fit", *words) == 1
    assert line in capsys.readouterr().err
