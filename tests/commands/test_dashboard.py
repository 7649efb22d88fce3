"""The dashboard as code: what it shows, without a server; and what is said without its extra."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def test_it_shows_distances_quality_accuracy_and_health(jiio, capsys):
    assert jiio("dashboard", "--entity", "us", "--project", "jiio", "--out", "new/board.json") == 0
    assert "new/board.json" in capsys.readouterr().out
    text = Path("new/board.json").read_text()
    for name in (
        "test/(fid|frechet_[a-z0-9_]+)_(reconstruction|generation)",
        "test/psnr",
        "test/accuracy_clean",
        "test/accuracy_pgd",
        "test/accuracy_jiio",
        "train/feasible",
        "train/residual_z",
        "val/steps",
        "images/test",
    ):
        assert name in text, name
    sections = json.loads(text)["spec"]
    assert sections


def test_without_the_extra_it_says_what_to_install(jiio, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert jiio("dashboard", "--entity", "us", "--project", "jiio", "--out", "board.json") == 1
    error = capsys.readouterr().err
    assert "pip install" in error and "wandb-workspaces" in error and error.count("\n") == 1
    assert not Path("board.json").exists()


def test_entity_and_project_are_needed(jiio, capsys):
    assert jiio("dashboard", "--project", "jiio") == 2
    assert "--entity" in capsys.readouterr().err
