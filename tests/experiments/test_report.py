"""What a report says, and what it must not say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from experiments.plan import Cell, Picture, Run, Table
from experiments.report import Figure, Report, entry


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
    assert "| A | 10.00 [9.00, 11.00] | 1 |" in text and "| B | missing | 2 |" in text and "| D | missing |  |" in text
    assert "missing: B, FID: out of memory" in text and "missing: C, FID: not run yet" in text
    record = json.loads((tmp_path / "results" / "table9" / "b_fid.json").read_text())
    assert record["value"] is None and record["missing"] == "out of memory"
    assert "<td>missing</td>" in path.with_suffix(".html").read_text()


def test_a_cell_that_a_budget_leaves_out_says_so(runner):
    left_out = Cell("E", "FID", (), "test/fid", 5.0)
    figure = Report.of(replace(TABLE, cells=(left_out,)), runner).figures[0]
    assert figure.value is None and figure.missing == "not part of this budget" and entry(figure) == "missing"


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
    assert entry(report.at("B", "FID")) == "20.00 [19.90, 20.10] (not converged)"
    assert "no ranking" in report.rankings()[0]


def test_several_seeds_give_a_mean_and_an_interval_over_seeds(runner, finish):
    seeded = cell("A", 1.0, 0, 1, 2)
    for number, value in enumerate((9.0, 10.0, 11.0)):
        fill(finish, seeded, value, 100.0, number=number)
    assert entry(Report.of(replace(TABLE, cells=(seeded,)), runner).at("A", "FID")) == "10.00 [8.87, 11.13]"


def test_a_seed_that_is_not_finished_makes_the_cell_missing(runner, finish):
    seeded = cell("A", 1.0, 0, 1)
    fill(finish, seeded, 9.0, 1.0)
    assert entry(Report.of(replace(TABLE, cells=(seeded,)), runner).at("A", "FID")) == "missing"


def test_pictures_and_provenance_stand_beside_the_figures(runner, finish, tmp_path):
    fill(finish, A, 10.0, 1.0)
    run = A.runs[0]
    picture = runner.folder(run) / "images" / "test.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    table = replace(TABLE, pictures=(Picture(run, "images/test.png", "samples of A"),))
    text = Report.of(table, runner).write(tmp_path / "results").read_text()
    assert "![samples of A](table9/01_test.png)" in text and (tmp_path / "results" / "table9" / "01_test.png").exists()
    assert "commit c0ffee, a machine" in text and (tmp_path / "results" / "table9" / "plot.png").stat().st_size > 1000


def test_a_report_names_no_path_of_the_machine(runner, finish, tmp_path):
    fill(finish, A, 10.0, 1.0)
    data = runner.project / "data" / "digits"
    record = replace(runner.record(A.runs[0]), data={str(data): "0123"}, command=f"jiio test --config {Path.cwd()}/tasks/a.yaml")
    report = Report(TABLE, (Figure(A, (record,)),), (), ())
    report.write(tmp_path / "results")
    (run,) = json.loads((tmp_path / "results" / "table9" / "a_fid.json").read_text())["runs"]
    assert run["data"] == {"digits": "0123"} and run["command"] == "jiio test --config tasks/a.yaml"
