"""The arithmetic of a comparison, by hand-made curves, and its report."""

from __future__ import annotations

import json
import math

import pytest
import torch

from jiio_lightning.comparison import Bench, Comparison, Curve, Point, describe, paper_baseline, with_budget
from jiio_lightning.core import Joint
from jiio_lightning.core.inner import SolveError
from jiio_lightning.report import table, write_report
from tests.tasks.test_generation import batch, inject, task


def curve(method: str, setting: str, *points: tuple[float, float]) -> Curve:
    return Curve(method, setting, f"{method}(...)", [Point(t, cost, k + 1, 1e-6) for k, (t, cost) in enumerate(points)])


def comparison(*nested: Curve) -> Comparison:
    joint = curve("joint", "Picard", (0.1, 8.0), (0.2, 4.0), (0.4, 2.0))
    return Comparison(joint, list(nested), {"z": [1.0, 0.1], "mu": [1.0, 0.2], "x": [0.0, 1.0]}, samples=5, repeats=3)


SLOW_BUT_LOW = curve("nested", "Adam(0.1)", (1, 9.0), (4, 4.0), (9, 1.0))
FAST_BUT_HIGH = curve("nested", "Adam(1)", (1, 5.0), (2, 3.0), (9, 3.0))


def test_the_ratio_is_taken_at_the_lowest_cost_that_both_reach():
    made = comparison(SLOW_BUT_LOW)
    assert made.target == 2.0 and made.speedup == pytest.approx(9 / 0.4)
    made = comparison(FAST_BUT_HIGH)
    assert made.target == 3.0 and made.speedup == pytest.approx(2 / 0.4), "the joint method needs its third budget for 3"


def test_the_nested_method_is_tuned_for_each_cost():
    """With the step size that gets there first, not with the one that ends lowest."""
    made = comparison(SLOW_BUT_LOW, FAST_BUT_HIGH)
    assert made.nested_seconds(8.0) == 1 and made.nested_seconds(4.0) == 2 and made.nested_seconds(2.0) == 9
    assert made.nested_seconds(0.5) == math.inf
    assert made.tuned is SLOW_BUT_LOW and made.target == 2.0


def test_a_step_size_that_diverges_is_left_aside(tmp_path):
    broken = curve("nested", "Adam(9)", (0.01, math.nan), (0.02, math.inf))
    made = comparison(broken, SLOW_BUT_LOW)
    assert made.target == 2.0 and made.tuned is SLOW_BUT_LOW
    write_report(made, tmp_path, pixels=2, reference=None)
    record = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert [point["cost"] for point in record["nested"][0]["points"]] == [None, None]
    with pytest.raises(SolveError, match="no nested solve ended at a finite cost"):
        comparison(broken)


def test_the_table_is_the_record(tmp_path):
    made = comparison(SLOW_BUT_LOW, FAST_BUT_HIGH)
    shown = table(made, pixels=2, reference=0.25)
    rows = list(zip(*(list(column.cells) for column in shown.columns), strict=True))
    assert rows[0] == ("joint Picard", "1", "4.0000", "0.100", "1.00", "x 10.0")
    assert rows[1] == ("joint Picard", "2", "2.0000", "0.200", "2.00", "x 10.0")
    assert rows[2] == ("joint Picard", "3", "1.0000", "0.400", "9.00", "x 22.5")
    assert rows[3][:4] == ("nested Adam(0.1)", "3", "0.5000", "9.000") and rows[5][2] == "0.2500"
    assert "x 22.5 at the lowest cost that both reach, 1.0000" in str(shown.caption)
    write_report(made, tmp_path, pixels=2, reference=0.25)
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert (record["speedup"], record["target"], record["tuned"]) == (pytest.approx(22.5), 2.0, "Adam(0.1)")
    assert record["pixels"] == 2 and record["reference"] == 0.25 and record["joint"]["points"][2]["seconds"] == 0.4


def test_a_cost_that_nested_never_reaches(tmp_path):
    shown = table(comparison(FAST_BUT_HIGH), pixels=1, reference=None)
    assert list(shown.columns[4].cells)[2] == "never"


@pytest.fixture
def bench() -> Bench:
    model = task().eval()
    solver = inject(model)
    given = batch()
    return Bench(model.problem(given), model.start(given), solver.resolve, repeats=1)


def test_the_costs_are_feasible_ones(bench):
    solver = Joint(max_steps=3)
    (point,) = bench.joint(solver, [3]).points
    solution = solver(bench.problem, bench.start)
    z, residual = bench.resolve(bench.problem, solution.v.x, bench.start.hidden)
    assert point.cost == pytest.approx(bench.problem.loss(z, solution.v.x).mean().item(), rel=1e-4)
    assert point.cost != pytest.approx(float(solution.cost.mean()), rel=1e-3), "three steps do not leave an equilibrium"
    assert point.steps == 3 and point.resolve_residual == pytest.approx(float(residual.max()), rel=0.5)


def test_a_solver_is_not_changed_by_its_comparison(bench):
    joint, nested = Joint(max_steps=7), paper_baseline(max_steps=2)
    curves = bench.joint(joint, [2, 1]), bench.nested(nested, 0.5), bench.nested(nested, 0.2)
    assert joint.max_steps == 7 and nested.step.size == 0.1 and with_budget(joint, 3).max_steps == 3
    assert [len(curve.points) for curve in curves] == [2, 2, 2]
    assert [point.steps for point in curves[0].points] == [1, 2]
    assert curves[1].points[0].cost == pytest.approx(curves[2].points[0].cost), "both begin at the start"
    assert curves[1].points[1].cost != curves[2].points[1].cost
    assert all(a.seconds < b.seconds for a, b in zip(curves[1].points, curves[1].points[1:], strict=False))


def test_residuals_of_the_largest_solve(bench):
    medians = bench.residuals(Joint(max_steps=5))
    assert set(medians) == {"z", "mu", "x"} and all(len(values) == 5 for values in medians.values())
    assert medians["z"][-1] < medians["z"][0] and not torch.tensor(medians["z"]).isnan().any()


def test_a_solver_describes_itself():
    text = describe(paper_baseline())
    assert text.startswith("Nested(step=Adam(size=0.1, betas=(0.9, 0.999), schedule=Constant())")
    assert "forward=FixedPoint(method=Anderson(type=2, memory=6" in text and "max_steps=18" in text and "warm=False" in text
