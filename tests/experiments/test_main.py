"""The command line of the laboratory: what it shows, what it refuses, where it writes."""

from __future__ import annotations

import sys

import pytest

from experiments.__main__ import main
from jiio_lightning.commands.provenance import provenance


def test_show_prints_every_command_in_order_and_runs_nothing(tmp_path, capsys):
    assert main(["table5", "--show", "--store", str(tmp_path)]) == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    names = [block[0].removeprefix("# ").split(",")[0] for block in blocks]
    assert names.index("adversarial/mnist_1_jiio_seed0") < names.index("table5/mnist_1_jiio_seed0")
    by_name = dict(zip(names, blocks, strict=True))
    assert by_name["table5/mnist_1_jiio_seed0"][0] == "# table5/mnist_1_jiio_seed0, after adversarial/mnist_1_jiio_seed0"
    command = by_name["table5/mnist_1_jiio_seed0"][1]
    assert command.startswith("jiio test --config tasks/mnist_adversarial.yaml --solver conf/solver/adversarial_joint.yaml ")
    assert command.endswith(f"--ckpt_path {tmp_path}/cpu/adversarial/mnist_1_jiio_seed0/checkpoints/last.ckpt")
    assert by_name["table5/seconds_mnist_1_jiio"][1].startswith("python -m experiments fit ")
    assert not list(tmp_path.iterdir())


def test_the_first_hour_is_for_a_gpu_unless_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["gpu-first-hour", "--store", str(tmp_path)]) == 2
    assert "the budget gpu needs a GPU, and torch" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(["gpu-first-hour", "--show", "--store", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "adversarial_joint.yaml --model.eps 1 --trainer conf/trainer/gpu.yaml --trainer.max_epochs 2" in shown
    assert "--trainer.max_time 00:00:10:00" in shown and "experiments fit --config tasks/celeba.yaml" in shown
    assert main(["all", "--show", "--budget", "cpu", "--store", str(tmp_path)]) == 0
    assert "# first_hour/" not in capsys.readouterr().out


def test_a_table_that_is_not_there_is_refused(capsys):
    assert main(["table99"]) == 2
    assert "no 'table99'" in capsys.readouterr().err


def test_a_report_of_what_is_there_runs_nothing(tmp_path, capsys):
    assert main(["fig2", "--budget", "smoke", "--run", "false", "--store", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    page = tmp_path / "smoke" / "results" / "fig2.md"
    assert out == f"{page}\n" and page.read_text().startswith("# Figures 2 and 5") and page.with_suffix(".json").is_file()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["fig2.json", "fig2.md"]


@pytest.mark.parametrize(
    ("program", "shown"),
    [("/usr/bin/jiio", "jiio"), ("/a/experiments/__main__.py", "python -m experiments")],
    ids=["jiio", "here"],
)
def test_the_record_of_a_command_names_the_program_that_was_typed(program, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "fit", "--config", "a b.yaml"])
    assert provenance()["command"] == f"{shown} fit --config 'a b.yaml'"


def test_the_loader_of_a_set_that_is_not_prepared(tmp_path, capsys):
    assert main(["loader", "cifar10", "--root", str(tmp_path)]) == 1
    assert "no set called cifar10 is prepared" in capsys.readouterr().err
