"""What the doctor finds, and what it says to do about what is missing."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from jiio_lightning.commands import doctor
from jiio_lightning.core import Joint

HERE = ("versions ", "threads ", "cpu ", "run files ", "data sets ", "runs ", "data ", "W&B ")


@pytest.fixture
def clean(monkeypatch, tmp_path) -> None:
    """No set is prepared and nobody is logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIIO_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def missing(capsys) -> list[str]:
    """What the doctor says to do."""
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    cures = [line.strip().removeprefix("missing: ") for line in lines if "missing: " in line]
    assert lines[-1] == f"{len(cures)} missing"
    return cures


def test_all_that_a_run_needs_is_here(clean, capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{what}" in f"\n{out}" for what in HERE) and out.endswith("all that a run needs is here\n")
    assert "not logged in" in out, "which is no fault"


def test_a_package_is_missing_or_too_old(clean, capsys, monkeypatch):
    wanted = ["torch<2", "nowhere>=1", "numpy>=1; extra == 'x'", "scipy>=99; extra == 'x'"]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    assert missing(capsys) == ["pip install 'torch<2' 'nowhere>=1'"]


def test_a_solve_that_fails(clean, capsys, monkeypatch):
    def broken(self, problem, v0, observers=()):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(Joint, "__call__", broken)
    (cure,) = missing(capsys)
    assert "conf/trainer/cpu.yaml" in cure


def test_a_set_that_is_damaged(clean, capsys, tmp_path):
    (tmp_path / "sets/digits").mkdir(parents=True)
    (tmp_path / "sets/digits/manifest.json").write_text("{}")
    (cure,) = missing(capsys)
    assert "is not a prepared set" in cure and "Remove the folder and prepare it again" in cure


def test_nowhere_to_write(clean, capsys, tmp_path):
    Path("runs").write_text("")
    (tmp_path / "sets").write_text("")
    one, two = missing(capsys)
    assert "nothing can be written in runs" in one and one.endswith("work in another folder")
    assert two.endswith("or set JIIO_DATA")


def test_a_full_disk(clean, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(5e8))
    assert missing(capsys) == ["make room: 1 GB are little enough"] * 2


def test_a_login_is_found(clean, monkeypatch, tmp_path):
    assert "not logged in at api.wandb.ai" in doctor.wandb_login().found
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password none\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert doctor.wandb_login().found == "logged in at api.wandb.ai"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert "not logged in at wandb.example.org" in doctor.wandb_login().found
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert doctor.wandb_login().found == "logged in at wandb.example.org"
