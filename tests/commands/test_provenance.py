"""The record beside every figure."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from jiio_lightning.commands import provenance as module
from jiio_lightning.commands.provenance import commit, hardware, provenance


def test_the_record_is_plain_data(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/jiio", "compare", "--sizes", "[0.1, 1]"])
    record = provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["command"] == "jiio compare --sizes '[0.1, 1]'", "it can be pasted into a shell"
    assert record["versions"]["torch"] == torch.__version__ and set(record["versions"]) >= {"python", "jiio-lightning"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    def git(*args: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *args], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    return tmp_path, git


def test_the_commit_says_whether_the_tree_differs(checkout):
    folder, git = checkout
    assert commit() == git("rev-parse", "--short=12", "HEAD")
    (folder / "untracked").write_text("x")
    assert not commit().endswith("+")
    (folder / "file").write_text("two")
    assert commit() == git("rev-parse", "--short=12", "HEAD") + "+"


def test_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown", "without git"


def test_the_hardware():
    text = hardware()
    assert ("threads" in text) != torch.cuda.is_available() and len(text) > 10
