"""Mixed precision: f and h in bfloat16, the solver in float32; what would round the solver is refused before work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jiio_lightning.callbacks import AugmentedDEQSolver
from jiio_lightning.cli import run
from jiio_lightning.core import InnerProblem
from jiio_lightning.core.precision import convolutions, full_precision
from jiio_lightning.tasks import Generation
from tests.conftest import REPO, metrics
from tests.tasks.test_generation import batch, inject, task

FEW = ("--solver.test.max_steps", "4", "--data.test_limit", "4", "--data.eval_batch_size", "4")
TESTED = {
    "generation": ("tasks/digits.yaml", *FEW),
    "inpainting": ("tasks/digits_inpainting.yaml", *FEW),
    "adversarial": ("tasks/digits_adversarial.yaml", *FEW, "--model.attacks", "[pgd, jiio]"),
    "meta": ("tasks/digits_meta.yaml", "--solver.test.max_steps", "4", "--data.test_episodes", "2"),
    "representation": ("tasks/image.yaml", "--data.size", "16", "--model.net.init_args.width", "8"),
}


def test_training_in_mixed_precision_is_near_that_in_float32(jiio) -> None:
    costs = {}
    for precision in ("32-true", "bf16-mixed"):
        assert jiio("fit", "--config", "tiny.yaml", "--name", precision, "--trainer.precision", precision) == 0
        costs[precision] = [float(row["train/cost"]) for row in metrics(Path("runs") / precision) if row["train/cost"]]
    full, mixed = costs.values()
    assert mixed == pytest.approx(full, rel=0.05) and mixed != full
    saved = torch.load("runs/bf16-mixed/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("name", TESTED)
def test_what_judges_is_in_float32_whatever_the_precision(jiio, name: str) -> None:
    config, *few = TESTED[name]
    fixed = ["test", "--config", str(REPO / config), "--ckpt_path", "none", "--seed_everything", "0", *few]
    judged = [run([*fixed, "--trainer.precision", precision]) for precision in ("32-true", "bf16-mixed")]
    full, mixed = ({name: float(value) for name, value in cli.trainer.callback_metrics.items()} for cli in judged)
    assert len(full) > 2 and mixed == pytest.approx(full, nan_ok=True)


@pytest.fixture(params=["old", "new"])
def usual(request):
    """What a GPU convolves in, set by PyTorch's old name, or by its new ones, after which the old one may not be asked."""
    if request.param == "old":
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
        yield True
        torch.backends.cudnn.allow_tf32 = before
    elif not hasattr(torch.backends.cudnn, "rnn"):
        pytest.skip("the new names came with PyTorch 2.9")
    else:
        before, torch.backends.cudnn.rnn.fp32_precision = torch.backends.cudnn.rnn.fp32_precision, "ieee"
        yield "tf32"
        torch.backends.cudnn.rnn.fp32_precision = before


def test_only_training_steps_may_convolve_in_tf32(jiio, monkeypatch, usual) -> None:
    assert convolutions() == usual
    seen: dict[str, set[bool]] = {"training_step": set(), "evaluate": set()}
    for name, allowed in seen.items():
        plain = getattr(Generation, name)

        def spied(self, *args, plain=plain, allowed=allowed):
            allowed.add(convolutions() == usual)
            return plain(self, *args)

        monkeypatch.setattr(Generation, name, spied)
    assert jiio("fit", "--config", "tiny.yaml") == 0 and jiio("test", "--config", "tiny.yaml") == 0
    assert seen == {"training_step": {True}, "evaluate": {False}}
    assert convolutions() == usual


def test_z_is_resolved_in_full_precision(usual) -> None:
    seen = []

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        seen.append((convolutions() == usual, torch.is_autocast_enabled("cpu")))
        return z / 2

    with torch.autocast("cpu"):
        problem = InnerProblem(f, lambda z, x: z.sum(dim=1))
        AugmentedDEQSolver().resolve(problem, torch.zeros(2, 3), 4)
    assert set(seen) == {(False, False)}


def test_an_error_leaves_the_convolutions_as_they_were(usual) -> None:
    with pytest.raises(RuntimeError, match="here"), full_precision("cpu"):
        raise RuntimeError("here")
    assert convolutions() == usual


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "16-true", "transformer-engine"])
def test_a_precision_that_would_spoil_the_solver_is_refused_before_work(jiio, capsys, monkeypatch, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.precision", precision) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert "bf16-mixed or 32-true" in said[-1] and not Path("runs").exists()


def test_what_pictures_and_distances_judge_is_in_full_precision(usual) -> None:
    model, seen = task(), []
    inject(model)
    plain = model.net.f
    model.net.f = lambda z, x: seen.append(convolutions() == usual) or plain(z, x)
    for judged in (lambda: model.reconstruct(batch()), lambda: model.decode(model.encode(batch()))):
        judged()
        assert seen and not any(seen)
        seen.clear()
