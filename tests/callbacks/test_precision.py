"""Mixed precision: f and h in bfloat16, the solver in float32; what would round the solver is refused before work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import metrics


def test_training_in_mixed_precision_is_near_that_in_float32(jiio) -> None:
    costs = {}
    for precision in ("32-true", "bf16-mixed"):
        assert jiio("fit", "--config", "tiny.yaml", "--name", precision, "--trainer.precision", precision) == 0
        costs[precision] = [float(row["train/cost"]) for row in metrics(Path("runs") / precision) if row["train/cost"]]
    full, mixed = costs.values()
    assert mixed == pytest.approx(full, rel=0.05) and mixed != full
    saved = torch.load("runs/bf16-mixed/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "16-true", "transformer-engine"])
def test_a_precision_that_would_spoil_the_solver_is_refused_before_work(jiio, capsys, monkeypatch, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jiio("fit", "--config", "tiny.yaml", "--trainer.precision", precision) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert "bf16-mixed or 32-true" in said[-1] and not Path("runs").exists()
