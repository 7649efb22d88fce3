"""The arithmetic of a comparison, by hand-made curves, and its report."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from jiio_lightning.commands import report
from jiio_lightning.commands.comparison import Bench, Comparison, Curve, Point, describe, mean_curve, paper_baseline, with_budget
from jiio_lightning.commands.report import table, write_report
from jiio_lightning.core import Augmented, Joint
from jiio_lightning.core.inner import SolveError
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


def attacks(tolerance: float = 0.0) -> Comparison:
    """Minus the cross-entropy of attacks, and the accuracy that each leaves."""

    def attacked(method: str, setting: str, *points: tuple[float, float, float]) -> Curve:
        places = [Point(t, cost, 10 * (k + 1), 1e-6, {"accuracy": share}) for k, (t, cost, share) in enumerate(points)]
        return Curve(method, setting, f"{method}(...)", places)

    joint = attacked("joint", "Picard", (1, -2.0, 0.4), (2, -2.99, 0.25), (8, -3.2, 0.2))
    released = attacked("nested", "Normalised(0.2)", (5, -1.0, 0.6), (10, -2.0, 0.39))
    longer = attacked("nested", "Normalised(0.4)", (5, -2.5, 0.3), (10, -2.99, 0.26), (20, -3.0, 0.24))
    return Comparison(joint, [released, longer], {}, samples=5, repeats=1, tolerance=tolerance)


def test_attacks_within_a_hair_of_one_another_are_equally_strong():
    made = attacks()
    assert made.target == -3.0 and made.speedup == pytest.approx(20 / 8), "the joint attack has to run to its end"
    made = attacks(tolerance=0.01)
    assert made.target == pytest.approx(-2.97) and made.speedup == pytest.approx(10 / 2)
    positive = replace(comparison(SLOW_BUT_LOW), tolerance=1.0)
    assert positive.target == 4.0 and positive.speedup == pytest.approx(4 / 0.2), "an easier cost is a larger one"


def test_the_figures_of_both_methods_stand_where_their_times_are_compared():
    record = attacks(tolerance=0.01).record()
    assert record["reached"] == {
        "joint": {"seconds": 2, "cost": -2.99, "steps": 20, "accuracy": 0.25},
        "nested": {"seconds": 10, "cost": -2.99, "steps": 20, "accuracy": 0.26},
    }
    assert record["gap"] == {"accuracy": pytest.approx(-0.01)}
    assert record["at"]["joint_30"] == {"seconds": 8, "cost": -3.2, "steps": 30, "accuracy": 0.2, "ratio": 20 / 8}


def test_the_outcome_against_each_step_size_alone():
    record = attacks().record()
    alone = record["against"]["Normalised(0.2)"]
    assert (alone["target"], alone["speedup"], alone["tuned"]) == (-2.0, 10.0, "Normalised(0.2)")
    assert alone["gap"] == {"accuracy": pytest.approx(0.01)}
    assert record["against"]["Normalised(0.4)"]["speedup"] == record["speedup"]


@pytest.mark.parametrize("made, scale, label", [(attacks(), "linear", "feasible cost"), (None, "log", "feasible cost per pixel")])
def test_costs_below_zero_are_drawn_on_a_linear_axis(tmp_path, monkeypatch, made, scale, label):
    drawn = {}
    monkeypatch.setattr(report, "save", lambda figure, axes, path: drawn.update({path.name: axes}))
    write_report(made or comparison(SLOW_BUT_LOW), tmp_path, pixels=1 if made else 2, reference=None)
    axes = drawn["cost_over_time.png"]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylabel()) == ("log", scale, label)


def test_the_table_shows_the_accuracy_left():
    shown = table(attacks(tolerance=0.01), pixels=1, reference=None)
    assert list(shown.columns[-1].cells) == ["0.4000", "0.2500", "0.2000", "0.3900", "0.2400"]
    assert "There accuracy is 0.2500 by joint in 20 steps, 0.2600 by nested in 20: within a point." in str(shown.caption)
    assert "0.2000 by joint in 30 steps, 0.2400 by nested in 30: not within a point." in str(table(attacks(), 1, None).caption)


def test_batches_are_averaged_place_by_place():
    one = Curve("joint", "Picard", "", [Point(1, -1.0, 8, 1e-6, {"accuracy": 0.5})])
    two = Curve("joint", "Picard", "", [Point(3, -2.0, 8, 1e-5, {"accuracy": 0.25})])
    assert mean_curve([one, two]).points == [Point(2, -1.5, 8, 1e-5, {"accuracy": 0.375})]


@pytest.fixture
def bench() -> Bench:
    model = task().eval()
    solver = inject(model)
    given = batch()
    problem = model.problem(given)
    return Bench(problem, partial(model.start, given), solver.resolve, partial(model.evaluate, given, problem), repeats=1)


def test_the_costs_are_feasible_ones(bench):
    solver = Joint(max_steps=3)
    (point,) = bench.joint(solver, [3]).points
    solution = solver(bench.problem, bench.start())
    z, residual = bench.resolve(bench.problem, solution.v.x, bench.hidden)
    assert point.cost == pytest.approx(bench.problem.loss(z, solution.v.x).mean().item(), rel=1e-4)
    assert point.cost != pytest.approx(float(solution.cost.mean()), rel=1e-3), "three steps do not leave an equilibrium"
    assert point.metrics["error"] == pytest.approx(point.cost / 64, rel=1e-4), "the metrics are those of the same z"
    assert point.steps == 3 and point.resolve_residual == pytest.approx(float(residual.max()), rel=0.5)


def test_the_joint_method_is_charged_for_its_start_and_the_nested_one_has_none(bench):
    cold = bench.start()
    warm = Augmented(cold.z + 1, cold.mu, cold.x)

    def start() -> Augmented:
        time.sleep(0.2)
        return warm

    own = Bench(bench.problem, start, bench.resolve, repeats=1)
    (point,) = own.joint(Joint(max_steps=1), [1]).points
    assert point.seconds > 0.2
    traced = own.nested(with_budget(paper_baseline(), 2), 0.5), bench.nested(with_budget(paper_baseline(), 2), 0.5)
    assert [point.cost for point in traced[0].points] == [point.cost for point in traced[1].points]
    residuals = (made.residuals(Joint(max_steps=2))["z"] for made in (own, bench))
    assert next(residuals) != next(residuals), "the joint method starts where it is told"


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
