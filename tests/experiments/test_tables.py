"""Every table under every budget: its runs are commands that the program understands, and nothing is made twice."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from experiments.job import json_metrics
from experiments.plan import Budget, Choice, Run
from experiments.record import is_fragment
from experiments.tables import FOLDER, TABLES, load
from jiio_lightning.commands.comparison import Comparison, Curve, Point
from jiio_lightning.commands.contenders import DEFAULT
from jiio_lightning.commands.learn_start import Learned

ROOT = Path(__file__).parents[2]
EVERY = [pytest.param(name, budget, id=f"{name}-{budget}") for name in TABLES for budget in Budget]
TABLE = """\
title: a table
setting: "{steps} steps"
caveat: none
budgets: {smoke: {steps: 2}}
runs:
  - for: {net: [vae, ae]}
    name: fit/{net}
    command: fit
    config: tasks/digits.yaml
    trials: {model.learning_rate: [0.1, 0.2]}
    overrides: [{trainer.max_steps: "{steps}", model.flag: true}, {data.limit: null}]
  - {name: other, command: fit, config: tasks/digits.yaml}
  - {only: [cpu], name: elsewhere, command: test, config: tasks/digits.yaml}
  - {name: test/vae, command: test, config: tasks/digits.yaml, weights: fit/vae, files: {seen/features.pt: other}}
columns:
  - {column: error, metric: test/error, digits: 4, better: low}
  - {column: psnr, metric: "{line.psnr}"}
rows:
  - {for: {line: [{name: VAE, psnr: null}]}, row: "{line.name}", run: test/vae}
  - {for: {line: [{psnr: test/psnr}]}, row: not here, run: elsewhere}
paper:
  VAE: {error: 1.5}
"""


def write(folder: Path, text: str = TABLE, old: str = "", new: str = "") -> Path:
    assert old in text
    path = folder / "one.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_a_file_becomes_a_table(tmp_path):
    table = load(write(tmp_path), Budget.SMOKE)
    assert (table.name, table.setting, table.better) == ("one", "2 steps", (("error", "low"),))
    vae, error, psnr = table.cells
    (run,) = vae.runs
    assert (vae.row, vae.column, vae.paper, vae.digits) == ("VAE", "error", 1.5, 4)
    assert error.runs == psnr.runs == () and psnr.metric == "test/psnr"
    assert isinstance(run.weights, Choice) and [trial.name for trial in run.weights.runs] == ["fit/vae_0.1", "fit/vae_0.2"]
    (file,) = run.files
    assert (file.place, file.run.name) == ("seen/features.pt", "other")
    words = ("--trainer.max_steps", "2", "--model.flag", "true", "--data.limit", "null")
    assert run.weights.runs[0].overrides == ("--model.learning_rate", "0.1", *words)


def test_a_cell_is_of_all_seeds_and_a_picture_of_the_first(tmp_path):
    path = write(tmp_path, old="    trials: {model.learning_rate: [0.1, 0.2]}", new="    seeds: [3, 4]")
    path.write_text(path.read_text() + "pictures:\n  - {run: test/vae, file: a.png, caption: a}\n")
    table = load(path, Budget.SMOKE)
    assert [run.name for run in table.cells[0].runs] == ["test/vae_seed3", "test/vae_seed4"]
    for run, seed in zip(table.cells[0].runs, "34", strict=True):
        assert isinstance(run.weights, Run) and run.weights.name == f"fit/vae_seed{seed}"
        assert run.weights.overrides[:2] == ("--seed_everything", seed) and "--seed_everything" not in run.overrides
    assert table.pictures[0].run == table.cells[0].runs[0]
    (tmp_path / "one seed").mkdir()
    one = write(tmp_path / "one seed", path.read_text(), "weights: fit/vae", "weights: fit/vae_seed4")
    assert [run.name for run in load(one, Budget.SMOKE).cells[0].runs] == ["test/vae_seed4"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("[test/vae, other]", ["test/vae", "other"]),
        ("'[to]*'", ["other", "test/vae"]),
        ("['[to]*', other]", ["other", "test/vae"]),
    ],
)
def test_a_cell_may_be_of_several_runs(given, meant, tmp_path):
    (vae, *_) = load(write(tmp_path, old="row: not here, run: elsewhere", new=f"row: both, run: {given}"), Budget.SMOKE).cells[1:]
    assert [run.name for run in vae.runs] == meant


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    command: fit", "    comand: fit", "one.yaml: runs has no key 'comand'"),
        ("caveat: none", "caveats: none", "one.yaml: a table has no key 'caveats'"),
        ("{smoke: {steps", "{smok: {steps", "one.yaml: budgets has no key 'smok'"),
        ("{steps} steps", "{step} steps", "one.yaml: there is no {step} under the budget smoke"),
        ("weights: fit/vae", "weights: fit/vea", "one.yaml: there is no run fit/vea"),
        ("run: test/vae", "run: test/v", "one.yaml: there is no run test/v"),
        ("run: test/vae", "run: tes/*", "one.yaml: there is no run tes/*"),
        ("net: [vae, ae]", "net: [vae, vae]", "one.yaml: two runs are called fit/vae"),
        ("weights: fit/vae", "weights: elsewhere", "one.yaml: elsewhere is not part of the budget smoke"),
        ("only: [cpu]", "only: [cpi]", "'cpi' is not a valid Budget"),
    ],
)
def test_a_mistake_is_named(old, new, complaint, tmp_path):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        load(write(tmp_path, old=old, new=new), Budget.SMOKE)


@pytest.mark.parametrize(("name", "budget"), EVERY)
def test_runs_have_files_and_names_of_their_own(name, budget):
    table = TABLES[name](budget)
    assert table.name == name and (table.cells or table.pictures or name == "fig6")
    assert all(cell.metric for cell in table.cells)
    places = [(cell.row, cell.column) for cell in table.cells]
    assert len(set(places)) == len(places), "two cells in one place"
    runs = table.runs()
    assert len({run.name for run in runs}) == len(runs), "two runs in one folder"
    for run in runs:
        assert re.fullmatch(r"[a-z0-9_./-]+", run.name) and (ROOT / run.config).is_file()
        missing = [text for text in run.overrides if text.endswith(".yaml") and not is_fragment(text, ROOT)]
        assert not missing, "fragments that are not there"


@pytest.mark.parametrize("budget", Budget)
def test_a_name_means_the_same_run_in_all_tables(budget):
    found: dict[str, set[Run]] = {}
    for make in TABLES.values():
        for run in make(budget).runs():
            found.setdefault(run.name, set()).add(run)
    assert not {name for name, runs in found.items() if len(runs) > 1}


@pytest.mark.parametrize("name", TABLES)
def test_every_value_of_the_paper_stands_in_a_cell(name):
    paper = yaml.safe_load((FOLDER / f"{name}.yaml").read_text()).get("paper", {})
    wanted = sorted(value for row in paper.values() for value in row.values())
    assert sorted(cell.paper for cell in TABLES[name](Budget.PAPER).cells if cell.paper is not None) == wanted


@pytest.mark.parametrize("budget", Budget)
def test_table_6_tests_each_net_as_it_was_trained(budget):
    """A checkpoint holds no settings: what is said of the model in a fit is said again in its test."""
    tests = [run for run in TABLES["table6"](budget).runs() if run.command == "test"]
    nets = {re.sub(r"_seed\d$", "", run.name) for run in tests}  # five baselines, both gradients
    # the paper's own net is for the paper's time; at cpu: a longer baseline for the gradient through x*
    assert len(nets) == (8 if budget is Budget.PAPER else 7)

    def model(run: Run) -> list[tuple[str, str]]:
        return [pair for pair in pairwise(run.overrides) if pair[0].startswith(("--model", "--solver"))]

    for test in tests:
        assert test.config == test.weights.config and model(test) == model(test.weights)


def recorded(run: Run, folder: Path) -> set[str]:
    """The metrics that a comparison or a learned start would record."""
    settings = dict(zip(run.overrides[::2], run.overrides[1::2], strict=True))
    if run.command == "learn_start":
        record = asdict(Learned("last.ckpt", samples=1, held_out=1, training=2.0, learned=1.0, seconds=3.0))
    else:
        solvers = yaml.safe_load((ROOT / settings["--solvers"]).read_text())
        default = {DEFAULT: {"family": "joint", "budgets": yaml.safe_load(settings["--budgets"])}}
        single = "--solvers."
        more = {key.removeprefix(single): yaml.safe_load(one) for key, one in settings.items() if key.startswith(single)}
        curves = [curve(name, one["family"], one["budgets"]) for name, one in (default | solvers | more).items()]
        record = Comparison(curves, {}, samples=1, batches=1, repeats=1).record()
    (folder / f"{run.command}.json").write_text(json.dumps(record))
    return set(json_metrics(folder, run.command))


def curve(name: str, family: str, budgets: list[int]) -> Curve:
    points = {budget: point(budget) for budget in budgets}
    return Curve(name, family, "zero", "", points, peak_mib=1.0)


def point(steps: int) -> Point:
    metrics = {"loss": 1.0, "accuracy": 0.5, "support_accuracy": 1.0}
    times = {"seconds": 1.0, "seconds_fastest": 1.0, "seconds_slowest": 1.0}
    counts = {"finite": 1.0, "evaluations": 1, "backwards": 1}
    residuals = {"z": 0.1, "mu": 0.1, "x": 0.1}
    return Point(steps=steps, cost=1.0, metrics=metrics, resolve_residual=0.0, residuals=residuals, kkt=0.1, **times, **counts)


@pytest.mark.parametrize("budget", Budget)
@pytest.mark.parametrize("name", ["table2", "table3", "table7", "fig3", "frontier"])
def test_the_cells_are_in_the_records_of_their_runs(name, budget, tmp_path):
    table = TABLES[name](budget)
    found = {run: recorded(run, tmp_path) for run in table.runs() if run.command in ("compare", "learn_start")}
    wanted = {(run, key) for cell in table.cells for run in cell.runs for key in (cell.metric, cell.over) if key is not None}
    assert wanted and not [(run.name, key) for run, key in wanted if key not in found[run]]


@pytest.mark.parametrize("budget", Budget)
def test_attacks_and_adaptations_are_timed_on_the_nets_of_the_tables_of_accuracy(budget):
    for timed, accuracy in (("table2", "table5"), ("table7", "table6")):
        fits = {run for run in TABLES[timed](budget).runs() if run.command == "fit"}
        assert fits and fits < {run for run in TABLES[accuracy](budget).runs() if run.command == "fit"}


@pytest.mark.parametrize("budget, there", [(budget, budget is Budget.PAPER) for budget in Budget])
def test_a_cell_without_a_run_stays(budget, there):
    cells = TABLES["table2"](budget).cells
    assert all(bool(cell.runs) == there for cell in cells if cell.row.startswith("CIFAR-10"))
    assert all(cell.runs for cell in cells if cell.row.startswith("MNIST"))


@pytest.mark.parametrize("budget", Budget)
def test_the_frontier_is_of_the_nets_of_other_tables(budget):
    runs = TABLES["frontier"](budget).runs()
    others = {run for name in ("table3", "table5", "table6") for run in TABLES[name](budget).runs()}
    assert {run for run in runs if run.command == "fit"} <= others
    compared = [run for run in runs if run.command == "compare"]
    starts = {run.name.removesuffix("_seed0"): run for run in runs if run.command == "learn_start"}
    assert [run.name.removesuffix("_seed0") for run in compared] == [
        f"frontier/{problem}" for problem in ("generator", "inpainting", "attack", "meta")
    ]
    assert set(starts) == {f"frontier/{problem}_start" for problem in ("generator", "attack", "meta")}
    assert all(run.weights in starts.values() for run in compared) and compared[0].weights == compared[1].weights


def parsed(run: Run) -> list[str]:
    words = [str(ROOT / text) if is_fragment(text, ROOT) else text for text in run.overrides]
    weights = ["--ckpt_path", "last"] if run.weights is not None else []
    return [run.command, "--config", str(ROOT / run.config), *words, *weights, "--print_config"]


def kind(run: Run) -> tuple[str, ...]:
    """The same for runs that differ in numbers only: trials, noise levels."""
    return (run.command, run.config, *(text for text in run.overrides if not text[0].isdigit()))


@pytest.mark.slow
@pytest.mark.parametrize("budget", Budget)
def test_the_program_understands_every_run(budget, jiio, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = {kind(run): run for make in TABLES.values() for run in make(budget).runs()}
    for run in runs.values():
        assert jiio(*parsed(run)) == 0, run.name
    capsys.readouterr()
