"""Means, medians and intervals over samples: against their definitions; of several processes: tests/tasks/test_ddp.py."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

from jiio_lightning.callbacks.gathering import gather_rows
from jiio_lightning.callbacks.sample_metrics import summary, write_rows
from jiio_lightning.metrics.intervals import mean_interval, median_interval, share_interval
from tests.conftest import metrics

CALLBACK = "--trainer.callbacks=[{class_path: jiio_lightning.callbacks.SampleMetrics}]"


def samples(stage: str = "test") -> dict[str, np.ndarray]:
    with Path(f"runs/tiny/samples_{stage}.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_the_interval_of_a_mean():
    values = np.array([1.0, 2.0, 3.0, 6.0, 3.0, 3.0])
    half = 1.959964 * math.sqrt(values.var(ddof=1) / 6)
    assert mean_interval(values) == pytest.approx((3 - half, 3 + half))
    assert mean_interval(values[:5]) is None


def test_the_interval_of_a_median_is_between_order_statistics():
    """Of 20 values the 6th and the 15th: 1 - 2 P(Bin(20, 1/2) <= 5) = 0.959, and the 7th and 14th would have 0.885."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 21.0)) ** 3
    assert median_interval(values) == (6.0**3, 15.0**3)
    assert median_interval(np.arange(6.0)) == (0.0, 5.0) and median_interval(np.arange(5.0)) is None


def test_the_interval_of_a_share_is_wilsons():
    values, z = np.array([1.0] * 9 + [0.0]), 1.959964
    centre, half = (0.9 + z**2 / 20) / (1 + z**2 / 10), z * math.sqrt(0.09 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert share_interval(values) == pytest.approx((centre - half, centre + half))
    low, high = share_interval(np.ones(10))
    assert (low, high) == pytest.approx((10 / (10 + z**2), 1.0))


def test_an_accuracy_of_zeros_and_ones_is_a_share():
    assert set(summary("accuracy_pgd", np.array([1.0, 0.0]))) == {"accuracy_pgd", "accuracy_pgd_low", "accuracy_pgd_high"}
    assert "accuracy_median" in summary("accuracy", np.array([1.0, 0.4])), "of episodes, say: a number between"
    assert "hit_median" in summary("hit", np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="one number a sample"):
        summary("image", np.zeros((2, 3)))


def test_each_sample_counts_once_and_in_order():
    first = {"index": torch.tensor([4, 1]), "error": torch.tensor([0.4, 0.1])}
    second = {"index": torch.tensor([1, 0]), "error": torch.tensor([0.1, 0.0])}
    rows = gather_rows([first, second])
    assert rows["index"].tolist() == [0, 1, 4] and rows["error"].tolist() == pytest.approx([0.0, 0.1, 0.4])
    assert gather_rows([]) == {}


def test_rows_replace_older_ones(tmp_path):
    for count in (3, 2):
        write_rows({"error": np.arange(count) / 2, "index": np.arange(count)}, tmp_path / "samples.csv")
    assert (tmp_path / "samples.csv").read_text().split() == ["index,error", "0,0.0", "1,0.5"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("command, stage, count", [("test", "test", 20), ("validate", "val", 8)])
def test_a_run_reports_them(jiio, checkpoint, monkeypatch, command, stage, count):
    seen = {}
    inner = getattr(Trainer, command)

    @functools.wraps(inner)  # the command line reads its signature
    def watched(self, *args, **kwargs):
        result = inner(self, *args, **kwargs)
        seen.update({name: float(value) for name, value in self.callback_metrics.items()})
        return result

    monkeypatch.setattr(Trainer, command, watched)
    assert jiio(command, "--config", "tiny.yaml", "--ckpt_path", checkpoint, CALLBACK) == 0
    rows = samples(stage)
    assert rows["index"].tolist() == list(range(count)) and set(rows) == {"index", "error", "psnr", "resolve_residual"}
    for name in ("error", "psnr"):
        assert seen[f"{stage}/{name}"] == pytest.approx(rows[name].mean(), rel=1e-5)
        assert seen[f"{stage}/{name}_median"] == pytest.approx(np.median(rows[name]), rel=1e-5)
        low, high = median_interval(rows[name])
        assert [seen[f"{stage}/{name}_median_low"], seen[f"{stage}/{name}_median_high"]] == pytest.approx([low, high], rel=1e-5)


def test_five_samples_have_means_and_no_intervals(jiio, checkpoint):
    """And a line that says so; the share of an accuracy has one."""
    words = ("--config", "tiny.yaml", "--ckpt_path", checkpoint, CALLBACK, "--data.test_limit", 5)
    with pytest.warns(UserWarning, match="5 samples have no 95 % intervals of means and medians: they need 6"):
        assert jiio("test", *words) == 0
    (row,) = metrics(Path("runs/tiny"))
    assert row["test/error"] and row["test/error_median"] and not [name for name in row if name.endswith(("_low", "_high"))]
    assert set(summary("accuracy_pgd", np.array([1.0]))) == {"accuracy_pgd", "accuracy_pgd_low", "accuracy_pgd_high"}


def test_within_a_fit_the_tasks_means_will_do(jiio):
    assert jiio("fit", "--config", "tiny.yaml", CALLBACK) == 0
    assert not list(Path("runs/tiny").glob("samples_*"))
