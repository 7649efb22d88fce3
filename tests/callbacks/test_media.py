"""Pictures, curves and tables reach Weights & Biases (offline) and TensorBoard, in one command each."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPO

SHOWN = (
    "--trainer.callbacks=[{class_path: jiio_lightning.callbacks.ImageGrid, init_args: {count: 4}},"
    " {class_path: jiio_lightning.callbacks.SampleMetrics}, {class_path: jiio_lightning.callbacks.SolveCurves}]"
)


@pytest.fixture
def command(checkpoint) -> list[str]:
    return ["test", "--config", "tiny.yaml", "--ckpt_path", str(checkpoint), SHOWN]


def test_weights_and_biases_offline(jiio, command, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    assert jiio(*command, "--trainer.logger", REPO / "conf/logger/wandb.yaml") == 0
    wandb.finish()
    (run,) = Path("runs/tiny/wandb").glob("offline-run-*")  # one such test: wandb's service keeps the folder of its first run
    assert next(run.glob("run-*.wandb")).is_file(), "what `wandb sync` would send"
    media = run / "files" / "media"
    files = [str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()]
    for start in ("images/images/test", "table/samples/test", "table/solve/test"):
        assert any(name.startswith(start) for name in files), (start, files)


def test_tensorboard(jiio, command):
    assert jiio(*command, "--trainer.logger", REPO / "conf/logger/tensorboard.yaml") == 0
    (folder,) = Path("runs/tiny/tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert "images/test" in events.Tags()["images"]
    assert "samples/test/text_summary" in events.Tags()["tensors"]
    assert {"solve/test/cost", "solve/test/residual_z", "test/error_median"} <= set(events.Tags()["scalars"])
    curve = events.Scalars("solve/test/cost")
    assert [point.step for point in curve] == list(range(1, 9)), "one point for each of the 8 steps of the test solver"
    assert curve[-1].value < curve[0].value
