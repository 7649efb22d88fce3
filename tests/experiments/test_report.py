"""What a report says, and what it must not say."""

from __future__ import annotations

import json
from dataclasses import replace

from experiments.job import RECORD
from experiments.plan import Cell, Picture, Run, Table
from experiments.record import Record
from experiments.report import Report, Result


def cell(row: str, paper: float | None, *seeds: int) -> Cell:
    fits = tuple(
        Run(f"{row}/fit{seed}", "fit", "tasks/a.yaml", ("--seed_everything", str(seed), "--row", row)) for seed in seeds or (0,)
    )
    return Cell(
        row, "FID", tuple(Run(f"{fit.name}/test", "test", "tasks/a.yaml", weights=fit) for fit in fits), "test/fid", paper
    )


A, B, C, D = cell("A", 1.0), cell("B", 2.0), cell("C", 3.0), cell("D", None)
TABLE = Table("table9", "Table 9", "Small nets.", "Other data.", (A, B, C, D), (("FID", "low"),))
STEADY = [(90, 1.0), (100, 1.0)]


def fill(finish, cell: Cell, value: float, half: float, curve=STEADY, number: int = 0) -> None:
    run = cell.runs[number]
    finish(run.weights, curve=curve)
    finish(run, test__fid=value, test__fid_low=value - half, test__fid_high=value + half)


def test_missing_is_missing_and_never_zero(runner, finish, tmp_path):
    fill(finish, A, 10.0, 1.0)
    runner.failures[B.runs[0].name] = "out of memory"
    path = Report.of(TABLE, runner).write(tmp_path / "results")
    text = path.read_text()
    assert "| A | 10.00 [9.00, 11.00] | 1 |" in text and "| B | missing | 2 |" in text and "| C | missing | 3 |" in text
    assert "Missing: B. Why: out of memory." in text and "Missing: C; D. Why: not run yet." in text
    assert "| D |" not in text, "a row without our value and without the paper's is empty"
    cells = {cell["row"]: cell for cell in json.loads(path.with_suffix(".json").read_text())["cells"]}
    assert cells["B"]["value"] is None and cells["B"]["missing"] == "out of memory" and cells["B"]["runs"] == []
    assert cells["A"]["value"] == 10.0 and cells["A"]["interval"] == [9.0, 11.0] and cells["A"]["runs"] == [A.runs[0].name]


def test_columns_are_there_only_where_they_hold_something(runner, finish, tmp_path):
    fill(finish, D, 10.0, 1.0)
    other = replace(D, column="never", runs=())
    text = Report.of(replace(TABLE, cells=(D, other)), runner).write(tmp_path / "results").read_text()
    assert "|  | FID |\n|---|---|\n| D | 10.00 [9.00, 11.00] |\n" in text and "Missing: D. Why: not part of this budget." in text


def test_a_run_stands_once_in_the_json_file(runner, finish, tmp_path):
    fill(finish, A, 10.0, 1.0)
    again = replace(A, column="the lower end", metric="test/fid_low")
    path = Report.of(replace(TABLE, cells=(A, again)), runner).write(tmp_path / "results").with_suffix(".json")
    table = json.loads(path.read_text())
    assert set(table["runs"]) == {"A/fit0", "A/fit0/test"} and table["runs"]["A/fit0/test"]["weights"] == "A/fit0"
    assert [cell["value"] for cell in table["cells"]] == [10.0, 9.0] and table["budget"] == "smoke"


def test_a_value_may_be_one_metric_over_another(runner, finish):
    finish(A.runs[0], test__slow=6.0, test__fast=4.0)
    ratio = replace(A, metric="test/slow", over="test/fast", scale=10.0, trained=False)
    found = Report.of(replace(TABLE, cells=(ratio, replace(ratio, over="test/none"))), runner).results
    assert found[0].value == 15.0 and found[1].missing == "the run has no test/none"


def test_what_a_feasible_cost_is_stands_where_one_is_shown(runner):
    said = "Feasible cost: the inner loss at z re-solved at the returned x."
    assert said not in Report.of(TABLE, runner).lines()
    assert said in Report.of(replace(TABLE, title="Feasible cost against time"), runner).lines()


def test_a_cell_that_a_budget_leaves_out_says_so(runner):
    left_out = Cell("E", "FID", (), "test/fid", 5.0)
    (result,) = Report.of(replace(TABLE, cells=(left_out,)), runner).results
    assert result.value is None and result.missing == "not part of this budget" and str(result) == "missing"


def test_a_ranking_is_stated_only_where_intervals_separate(runner, finish):
    fill(finish, A, 10.0, 1.0)
    fill(finish, B, 11.5, 1.0)
    fill(finish, C, 14.0, 1.0)
    (line,) = Report.of(TABLE, runner).rankings()
    assert line == "FID (low is better): A ~ B > C. The paper's order: A, B, C."
    backwards = replace(TABLE, better=(("FID", "high"),))
    assert "C > B ~ A" in Report.of(backwards, runner).rankings()[0]


def test_a_fit_that_still_improves_carries_no_claim(runner, finish):
    fill(finish, A, 10.0, 0.1)
    fill(finish, B, 20.0, 0.1, curve=[(90, 1.0), (100, 0.5)])
    report = Report.of(TABLE, runner)
    assert str(report.at("B", "FID")) == "20.00 [19.90, 20.10] (not converged)"
    assert "no ranking" in report.rankings()[0]


def test_the_seconds_of_a_fit_that_was_cut_off_are_of_its_last_part(runner, finish):
    fill(finish, A, 10.0, 0.1)
    fill(finish, B, 20.0, 0.1)
    path = runner.folder(B.runs[0].weights) / RECORD
    replace(Record.load(path), resumed=True).save(path)
    lines = Report.of(TABLE, runner).lines()
    whole, part = (next(line for line in lines if line.startswith(f"| {name}/fit0 |")) for name in "AB")
    assert "| 1 |" in whole and "| 1 (its last part: it was cut off before) |" in part


def test_several_seeds_give_a_mean_and_an_interval_over_seeds(runner, finish):
    """Student's: 4.303 standard errors of three."""
    seeded = cell("A", 1.0, 0, 1, 2)
    for number, value in enumerate((9.0, 10.0, 11.0)):
        fill(finish, seeded, value, 100.0, number=number)
    assert str(Report.of(replace(TABLE, cells=(seeded,)), runner).at("A", "FID")) == "10.00 [7.52, 12.48]"


def test_a_seed_that_is_not_finished_makes_the_cell_missing(runner, finish):
    seeded = cell("A", 1.0, 0, 1)
    fill(finish, seeded, 9.0, 1.0)
    assert str(Report.of(replace(TABLE, cells=(seeded,)), runner).at("A", "FID")) == "missing"


def test_pictures_and_origins_stand_on_the_page(runner, finish, tmp_path):
    fill(finish, A, 10.0, 1.0)
    run = A.runs[0]
    picture = runner.folder(run) / "images" / "test.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    table = replace(TABLE, pictures=(Picture(run, "images/test.png", "samples of A"),))
    text = Report.of(table, runner).write(tmp_path / "results").read_text()
    assert "![samples of A](table9/01_test.png)" in text and "commit c0ffee, a machine" in text
    assert sorted(path.name for path in (tmp_path / "results").rglob("*")) == [
        "01_test.png",
        "table9",
        "table9.json",
        "table9.md",
    ]


def test_a_report_names_no_path_of_the_machine(runner, finish, tmp_path):
    finish(A.runs[0], data={str(runner.project / "data" / "digits"): "0123"}, test__fid=1.0)
    record = Record.load(runner.folder(A.runs[0]) / RECORD)
    report = Report(TABLE, "smoke", (Result(A, (record,)),), {record.name: record}, (), ())
    path = report.write(tmp_path / "results").with_suffix(".json")
    assert json.loads(path.read_text())["runs"]["A/fit0/test"]["data"] == {"digits": "0123"}
    assert str(tmp_path) not in path.read_text()
