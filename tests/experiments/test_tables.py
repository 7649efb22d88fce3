"""Every table of every budget: its runs are commands that the program understands, its names are paths, nothing is made twice."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.job import json_metrics
from experiments.plan import Budget, Run
from experiments.record import is_fragment, key
from experiments.tables import TABLES
from jiio_lightning.commands.comparison import Comparison, Curve, Point
from jiio_lightning.commands.front import DEFAULT, RIVALS, Entry, Front
from jiio_lightning.commands.starting import Learned
from tests.commands.test_front import measured

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


@pytest.mark.parametrize("budget", Budget)
def test_the_cells_of_table_2_are_in_the_record_of_a_comparison(budget, tmp_path):
    table = TABLES["table2"](budget)
    (words,) = {run.overrides[run.overrides.index("--budgets") + 1] for run in table.runs() if run.command == "compare"}
    figures = {"loss": 1.0, "accuracy": 0.5}
    joint = Curve("joint", "Picard", "", [Point(1.0, -1.0, steps, 1e-6, figures) for steps in json.loads(words)])
    nested = Curve("nested", "Normalised(0.2)", "", [Point(2.0, -1.0, 20, 1e-6, figures)])
    record = Comparison(joint, [nested], {}, samples=1, repeats=1).record()
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    assert {cell.metric for cell in table.cells} <= set(json_metrics(tmp_path, "compare"))


@pytest.mark.parametrize("budget", Budget)
def test_table_7_times_the_net_of_table_6(budget, tmp_path):
    """Its cells are in the record of a comparison."""
    table, (fit, compare) = TABLES["table7"](budget), TABLES["table7"](budget).runs()
    assert fit in TABLES["table6"](budget).runs() and compare.weights is fit and compare.command == "compare"
    words = compare.overrides
    budgets, adam = json.loads(words[words.index("--budgets") + 1]), int(words[words.index("--baseline.max_steps") + 1])
    figures = {"accuracy": 0.5, "support_accuracy": 1.0}
    joint = Curve("joint", "Picard", "", [Point(1.0, 1.0, steps, 1e-6, figures) for steps in budgets])
    nested = Curve("nested", "Adam(0.1)", "", [Point(2.0, 1.0, adam, 1e-6, figures)])
    (tmp_path / "comparison.json").write_text(json.dumps(Comparison(joint, [nested], {}, samples=1, repeats=1).record()))
    assert {cell.metric for cell in table.cells} <= set(json_metrics(tmp_path, "compare"))
    paper = {cell.paper for cell in table.cells if cell.paper is not None}
    assert paper == (set() if budget is Budget.SMOKE else {28948, 11836, 2.45})


@pytest.mark.parametrize("budget", Budget)
def test_table_6_tests_each_net_as_it_was_trained(budget):
    """A checkpoint holds no settings: what is said of the model in a fit is said again in its test."""
    tests = [run for run in TABLES["table6"](budget).runs() if run.command == "test"]
    assert len(tests) == (7 if budget is Budget.PAPER else 8)  # at the paper's length nothing is short

    def model(run: Run) -> list[tuple[str, str]]:
        return [pair for pair in pairwise(run.overrides) if pair[0].startswith(("--model", "--solver"))]

    for test in tests:
        assert test.config == test.weights.config and model(test) == model(test.weights)


@pytest.mark.parametrize("budget", Budget)
def test_the_frontier_is_of_the_nets_of_other_tables(budget, tmp_path):
    """And its cells are in the record of a front."""
    table = TABLES["frontier"](budget)
    others = {run for name in ("table3", "table5", "table6") for run in TABLES[name](budget).runs()}
    fronts = [run for run in table.runs() if run.command == "front"]
    assert {run for run in table.runs() if run.command == "fit"} <= others
    assert [run.name for run in fronts] == [f"frontier/{row}" for row in ("generator", "inpainting", "attack", "meta")]
    assert all(run.alone for run in fronts) and fronts[0].weights == fronts[1].weights
    point = measured(1.0, 1.0)
    entries = [Entry(name, name if name in RIVALS else "joint", "own", "", [point], 1.0) for name in (DEFAULT, *RIVALS)]
    (tmp_path / "front.json").write_text(json.dumps(Front(entries, samples=1, repeats=1).record()))
    learned = Learned(tmp_path / "last.ckpt", samples=1, held_out=1, plain=2.0, learned=1.0, seconds=3.0)
    (tmp_path / "learn_start.json").write_text(json.dumps(learned.record()))
    figures = {command: set(json_metrics(tmp_path, command)) for command in ("front", "learn_start")}
    assert all(cell.metric in figures[run.command] for cell in table.cells for run in cell.runs)
    starts = {run.name: run for run in table.runs() if run.command == "learn_start"}
    assert set(starts) == {f"frontier/{row}_start" for row in ("generator", "attack", "meta")}
    assert all(run.weights in starts.values() and run.overrides != run.weights.overrides for run in fronts)
    assert all(run.overrides[-2:] == ("--out", "started/last.ckpt") for run in starts.values()), "where a runner looks"


@pytest.mark.parametrize("budget, there", zip(Budget, (True, False, False, True), strict=True))
def test_table_2_attacks_the_classifiers_of_table_5(budget, there):
    table = TABLES["table2"](budget)
    fits = {run for run in table.runs() if run.command == "fit"}
    assert fits < {run for run in TABLES["table5"](budget).runs() if run.command == "fit"}
    assert all(bool(cell.runs) == there for cell in table.cells if cell.row.startswith("CIFAR-10"))
    assert all(cell.runs for cell in table.cells if cell.row.startswith("MNIST"))
    paper = {(cell.row.partition(": ")[2], cell.column): cell.paper for cell in table.cells if cell.paper is not None}
    assert {value for (_, column), value in paper.items() if column == "ms an image"} == {4360, 1401}


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
