"""The arithmetic of a comparison, by hand-made points, and its report."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
import yaml

from jiio_lightning.commands import compare_report
from jiio_lightning.commands.compare_report import table, write_report
from jiio_lightning.commands.comparison import Comparison, Curve, Point
from jiio_lightning.commands.contenders import STARTS, Family
from jiio_lightning.core.inner import SolveError
from tests.conftest import REPO


def point(
    seconds: float, cost: float, steps: int = 5, residual: float = 1e-6, violation: float = 1e-3, **metrics: float
) -> Point:
    return Point(
        steps=steps,
        seconds=seconds,
        seconds_fastest=0.9 * seconds,
        seconds_slowest=1.1 * seconds,
        cost=cost,
        metrics=metrics,
        resolve_residual=residual,
        residuals={"z": violation, "mu": 0.1, "x": 0.2},
        kkt=0.25,
        finite=1.0,
        evaluations=7,
        backwards=5,
    )


def curve(name: str, family: Family, *points: Point, peak: float = 10.0) -> Curve:
    return Curve(name, family, STARTS.get(family, "training"), f"{name}(...)", dict(enumerate(points, 1)), peak)


DEFAULT = curve("default", "joint", point(1, 8.0), point(2, 2.0, violation=5e-3))
COLD = curve("cold", "paper", point(10, 9.0), point(20, 3.0), peak=40.0)
COLDER = curve("colder", "paper", point(12, 2.5), peak=20.0)
WARM = curve("warm", "nested", point(4, 1.0))
RESIDUALS = {"z": [1.0, 0.1], "mu": [1.0, 0.2], "x": [0.0, 1.0]}


def comparison(*curves: Curve, default: Curve = DEFAULT, **settings) -> Comparison:
    return Comparison([default, *curves], RESIDUALS, samples=3, batches=2, repeats=5, **settings)


def test_the_pareto_front_is_what_nothing_beats_in_both():
    made = comparison(COLD, COLDER, WARM, curve("as good", "joint", point(1, 9.0), point(2.5, 2.0)))
    assert [(of.name, at.cost) for of, at in made.pareto] == [("default", 8.0), ("default", 2.0), ("warm", 1.0)]


def test_the_ratio_is_taken_at_the_lowest_cost_that_both_reach_with_the_fastest_of_a_family():
    against = comparison(COLD, COLDER, WARM).record()["against"]
    paper = against["paper"]
    assert (paper["tuned"], paper["target"], paper["speedup"], paper["violation"]) == ("colder", 2.5, 12 / 2, 5e-3)
    assert (against["nested"]["tuned"], against["nested"]["target"], against["nested"]["speedup"]) == ("warm", 2.0, 4 / 2)


def test_each_baseline_alone():
    against = comparison(COLD, COLDER, WARM).record()["against"]
    assert list(against) == ["paper", "nested", "cold", "colder", "warm"]
    assert (against["cold"]["target"], against["cold"]["speedup"], against["cold"]["tuned"]) == (3.0, 20 / 2, "cold")
    assert against["colder"] == against["paper"] and against["warm"] == against["nested"]


def test_a_tolerance_makes_the_target_easier():
    """Of costs below zero too: attacks within a hair of one another are equally strong."""
    assert comparison(COLD, WARM, tolerance=2.0).outcomes["paper"].target == 9.0
    joint = curve("default", "joint", point(1, -2.0), point(2, -2.99), point(8, -3.2))
    pgd = curve("pgd", "paper", point(5, -2.5), point(10, -2.99), point(20, -3.0))
    made = comparison(pgd, default=joint).outcomes["paper"]
    assert made.target == -3.0 and made.speedup == 20 / 8, "the default has to run to its end"
    made = comparison(pgd, default=joint, tolerance=0.01).outcomes["paper"]
    assert made.target == pytest.approx(-2.97) and made.speedup == 10 / 2


def test_the_first_in_time_counts_where_a_larger_budget_was_faster():
    assert comparison(curve("odd", "paper", point(9, 2.0), point(5, 2.0))).outcomes["paper"].speedup == 5 / 2


def test_memory_is_over_the_least_of_the_papers():
    assert comparison(COLD, COLDER, WARM).memory == 0.5 and comparison(WARM).memory is None


def attacks() -> Comparison:
    """Minus the cross-entropy of attacks, and the accuracy that each leaves."""
    default = curve("default", "joint", point(1, -2.0, accuracy=0.4), point(2, -2.99, 20, accuracy=0.25))
    return comparison(curve("pgd", "paper", point(5, -2.0, 10, accuracy=0.39), point(10, -2.5, accuracy=0.28)), default=default)


def test_the_metrics_of_both_sides_stand_where_their_times_are_compared():
    record = attacks().record()
    reached = record["against"]["paper"]["reached"]
    assert (reached["default"]["seconds"], reached["default"]["steps"], reached["default"]["accuracy"]) == (2, 20, 0.25)
    assert (reached["baseline"]["seconds"], reached["baseline"]["cost"], reached["baseline"]["accuracy"]) == (10, -2.5, 0.28)
    assert record["against"]["paper"]["gap"] == {"accuracy": pytest.approx(-0.03)}
    assert record["contenders"]["pgd"]["at"]["1"]["accuracy"] == 0.39 and record["contenders"]["pgd"]["at"]["1"]["steps"] == 10
    shown = table(attacks())
    assert [column.header for column in shown.columns][:4] == ["contender", "steps", "cost", "accuracy"]
    assert "There accuracy is 0.2500 and 0.2800: not within a point." in str(shown.caption)


@pytest.mark.parametrize("bad", [point(0.1, math.nan, residual=math.nan), point(0.1, 0.1, residual=0.5)])
def test_what_diverges_or_is_infeasible_is_recorded_and_left_aside(tmp_path, bad):
    made = comparison(curve("cold", "paper", bad), curve("warm", "nested", bad, point(4, 2.0)))
    assert all(of.name != "cold" for of, _ in made.pareto)
    assert set(made.outcomes) == {"nested", "warm"} and made.outcomes["nested"].speedup == 2
    assert "the paper's Nested: no solve ended at a feasible cost." in str(table(made).caption)
    write_report(made, tmp_path)
    record = json.loads((tmp_path / "compare.json").read_text(), parse_constant=pytest.fail)
    assert record["contenders"]["cold"]["at"]["1"]["seconds"] == 0.1
    assert record["contenders"]["cold"]["at"]["1"]["cost"] == (None if math.isnan(bad.cost) else 0.1)
    with pytest.raises(SolveError, match=r"no solve of default ended at .* and default\(\.\.\.\)"):
        comparison(COLD, default=curve("default", "joint", bad))
    with pytest.raises(SolveError, match="no solve of cold ended at a finite, feasible cost"):
        comparison(curve("cold", "paper", bad))


def test_the_table_is_the_record():
    shown = table(comparison(COLD, WARM, curve("broken", "nested", point(1, math.nan)), pixels=2, reference=0.25))
    rows = list(zip(*(list(column.cells) for column in shown.columns), strict=True))
    assert rows[0][:5] == ("default *", "5", "4", "1", "20%") and rows[0][-2:] == ("20", "x 20.0")
    assert rows[1][-2:] == ("never", "") and rows[2][0] == "cold" and rows[4][0] == "warm *"
    assert rows[5][:3] == ("broken", "5", "infeasible") and rows[6][:3] == ("PCA, same latent", "", "0.25")
    caption = str(shown.caption)
    assert "x 10.0 against the paper's Nested at cost 1.5: default 2 s in 5 steps, cold 20 s in 5; |z| 5e-03." in caption
    assert "x 2.0 against the strongest Nested at cost 1:" in caption and "over the paper's Nested: 0.25." in caption


def test_of_many_budgets_the_table_shows_the_last_and_where_the_target_is_met():
    dense = curve("dense", "paper", *(point(10 + k, max(9.0 - k, 1.5), k + 1) for k in range(20)))
    steps = list(table(comparison(dense)).columns[1].cells)
    assert steps == ["5", "5", "8", "20"]


def test_without_baselines_there_is_no_ratio(tmp_path):
    made = comparison(curve("other", "joint", point(1, 1.0)))
    write_report(made, tmp_path)
    assert made.record()["against"] == {} and "baseline s" not in [column.header for column in table(made).columns]


def test_the_longest_name_fits(tmp_path, capsys):
    """A file has 80 columns, the table has more: nothing of it is cut off."""
    name = max((name for path in REPO.glob("conf/compare/*.yaml") for name in yaml.safe_load(path.read_text())), key=len)
    write_report(comparison(curve(name, "paper", point(10, 9.0))), tmp_path)
    shown = capsys.readouterr().out
    assert f"{name} " in shown and "…" not in shown and "5e-03" in shown and "6 held-out samples" in shown


@pytest.mark.parametrize(("cost", "scale"), [(1.0, "log"), (-1.0, "linear")])
def test_the_picture(tmp_path, monkeypatch, cost, scale):
    """A line for each contender, the default thickest, a ring around each point of the front; nothing in the legend is hidden."""
    drawn = []
    monkeypatch.setattr(compare_report, "_save", lambda figure, axes, path, legend: drawn.append(axes))
    made = comparison(COLD, COLDER, curve("warm", "nested", point(4, cost)), curve("ours", "learned", point(3, 5.0)))
    compare_report.plot_cost(made, tmp_path / "cost.png")
    (axes,) = drawn
    widths = {line.get_label(): line.get_linewidth() for line in axes.lines}
    assert set(widths) == {"paper: cold", "paper: colder", "nested: warm", "learned: ours", "default"}
    assert max(widths, key=widths.get) == "default"
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 5
    assert set(compare_report.LOOKS) == set(get_args(Family))
    assert {text.get_text() for text in axes.texts} == set(widths), "a name each; a ratio for each family would be too many"
    (rings,) = axes.collections
    assert rings.get_offsets().tolist() == [[at.seconds, at.cost] for _, at in made.pareto]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", scale)


def test_of_many_contenders_the_best_of_each_family_are_named(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare_report, "_save", lambda figure, axes, path, legend: drawn.append(axes))
    warm = [curve(f"warm {number}", "nested", point(number, 9.0 - number)) for number in range(1, 7)]
    compare_report.plot_cost(comparison(*warm), tmp_path / "cost.png")
    (axes,) = drawn
    assert {text.get_text() for text in axes.texts if text.get_text()[:1] not in "x"} == {"default", "the strongest Nested"}
    (best,) = (line for line in axes.lines if line.get_label() == "the strongest Nested")
    assert len(best.get_xdata()) == 6, "each is cheaper than the one before, and later"
    heights = [text.xyann[1] for text in axes.texts if text.get_text() in ("default", "the strongest Nested")]
    assert abs(heights[0] - heights[1]) > 0.04, "names do not overlap"


def test_one_family_has_its_ratio_in_the_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare_report, "_save", lambda figure, axes, path, legend: drawn.append(axes))
    compare_report.plot_cost(comparison(COLD, pixels=2, reference=0.25), tmp_path / "cost.png")
    arrow, ratio, *names = drawn[0].texts
    assert {name.get_text() for name in names} == {"default", "paper: cold", "PCA, same latent"}
    assert (arrow.xy, ratio.get_text()) == ((20, 1.5), "x 10.0")
    assert drawn[0].get_ylabel() == "feasible cost per pixel" and "PCA, same latent" in [
        line.get_label() for line in drawn[0].lines
    ]
