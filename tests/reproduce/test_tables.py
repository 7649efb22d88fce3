"""Every table of every budget: its runs are commands that the program understands, its names are paths, nothing is made twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jiio_lightning.reproduce.plan import Budget, Run
from jiio_lightning.reproduce.record import is_fragment, key
from jiio_lightning.reproduce.tables import TABLES

ROOT = Path(__file__).parents[2]
EVERY = [pytest.param(name, budget, id=f"{name}-{budget}") for name in TABLES for budget in Budget]


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_runs_have_files_and_names_of_their_own(name, budget):
    table = TABLES[name](budget)
    assert table.name == name and (table.cells or table.pictures or name == "fig6")
    runs = table.runs()
    assert len({run.name for run in runs}) == len(runs), "two runs in one folder"
    for run in runs:
        assert re.fullmatch(r"[a-z0-9_./-]+", run.name) and (ROOT / run.config).is_file()
        missing = [text for text in run.overrides if text.endswith(".yaml") and not is_fragment(text, ROOT)]
        assert not missing, "fragments that are not there"


@pytest.mark.parametrize("budget", Budget)
def test_a_name_means_the_same_run_in_all_tables(budget):
    keys: dict[str, set[str]] = {}
    for make in TABLES.values():
        for run in make(budget).runs():
            keys.setdefault(run.name, set()).add(key(run, ROOT))
    assert not {name for name, found in keys.items() if len(found) > 1}


def parsed(run: Run) -> list[str]:
    words = [str(ROOT / text) if is_fragment(text, ROOT) else text for text in run.overrides]
    weights = ["--ckpt_path", "last"] if run.weights is not None else []
    return [run.command, "--config", str(ROOT / run.config), *words, *weights, "--print_config"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_the_program_understands_every_run(name, budget, jiio, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for run in TABLES[name](budget).runs():
        assert jiio(*parsed(run)) == 0, run.name
    capsys.readouterr()
