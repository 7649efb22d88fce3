"""The frontier: its arithmetic by hand-made points, its counts by the budgets of the solvers, its files from a tiny run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from jiio_lightning.commands import front_report
from jiio_lightning.commands.checkpoint import read_checkpoint, write_checkpoint
from jiio_lightning.commands.comparison import Bench
from jiio_lightning.commands.front import STARTS, Contender, Entry, Family, Front, Measured, counted, race
from jiio_lightning.commands.front_report import table, write_front
from jiio_lightning.core import Augmented, InnerProblem, Joint, Nested
from jiio_lightning.core.inner import SolveError
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.steps import Plain
from jiio_lightning.models import LatentGenerator
from jiio_lightning.starts import LinearDecoder
from jiio_lightning.tasks.base import LEARNED
from tests.conftest import REPO
from tests.test_cli import error


def measured(seconds: float, cost: float, residual: float = 1e-6, violation: float = 1e-3) -> Measured:
    norms = {"z": violation, "mu": 0.1, "x": 0.2}
    return Measured(
        seconds=seconds,
        cost=cost,
        steps=5,
        resolve_residual=residual,
        seconds_low=0.9 * seconds,
        seconds_high=1.1 * seconds,
        evaluations=7,
        backwards=5,
        finite=1.0,
        residuals=norms,
        kkt=0.25,
    )


def entry(name: str, family: str, *points: Measured, peak: float = 10.0) -> Entry:
    return Entry(name, family, STARTS[family], f"{name}(...)", list(points), peak)


DEFAULT = entry("default", "joint", measured(1, 8.0), measured(2, 2.0, violation=5e-3))
COLD = entry("cold", "paper", measured(10, 9.0), measured(20, 3.0), peak=40.0)
COLDER = entry("colder", "paper", measured(12, 2.5), peak=20.0)
WARM = entry("warm", "nested", measured(4, 1.0))


def front(*entries: Entry, **settings) -> Front:
    return Front([DEFAULT, *entries], samples=3, repeats=5, **settings)


def test_the_pareto_front_is_what_nothing_beats_in_both():
    made = front(COLD, COLDER, WARM, entry("as good", "joint", measured(1, 9.0), measured(2.5, 2.0)))
    assert [(of.name, point.cost) for of, point in made.pareto] == [("default", 8.0), ("default", 2.0), ("warm", 1.0)]


def test_the_ratios_are_those_of_a_comparison_with_the_fastest_of_a_family():
    record = front(COLD, COLDER, WARM).record()["against"]
    paper = record["paper"]
    assert (paper["tuned"], paper["target"], paper["speedup"], paper["violation"]) == ("colder", 2.5, 12 / 2, 5e-3)
    assert (record["nested"]["tuned"], record["nested"]["target"], record["nested"]["speedup"]) == ("warm", 2.0, 4 / 2)
    easier = front(COLD, WARM, tolerance=2.0).record()["against"]
    assert easier["paper"]["target"] == 9.0 and easier["paper"]["violation"] == 1e-3


def test_the_first_in_time_counts_where_a_larger_budget_was_faster():
    made = front(entry("odd", "paper", measured(9, 2.0), measured(5, 2.0)))
    assert made.against("paper").speedup == 5 / 2


def test_memory_is_over_the_least_of_the_papers():
    assert front(COLD, COLDER, WARM).memory == 0.5 and front(WARM).memory is None


@pytest.mark.parametrize("bad", [measured(0.1, math.nan, math.nan), measured(0.1, 0.1, residual=0.5)])
def test_what_diverges_or_is_infeasible_is_recorded_and_left_aside(tmp_path, bad):
    made = front(entry("cold", "paper", bad), entry("warm", "nested", bad, measured(4, 2.0)))
    assert all(of.name != "cold" for of, _ in made.pareto)
    assert made.against("paper") is None and made.against("nested").speedup == 2
    write_front(made, tmp_path, pixels=1)
    record = json.loads((tmp_path / "front.json").read_text(), parse_constant=pytest.fail)
    (point,) = record["contenders"]["cold"]["points"]
    assert point["seconds"] == 0.1 and point["cost"] in (None, 0.1) and set(record["against"]) == {"nested"}
    with pytest.raises(SolveError, match="no solve of the default"):
        Front([entry("default", "joint", bad), COLD], samples=1, repeats=1)


def test_the_table_is_the_record():
    shown = table(front(COLD, entry("broken", "nested", measured(1, math.nan))), pixels=2)
    rows = list(zip(*(list(column.cells) for column in shown.columns), strict=True))
    assert rows[1][:6] == ("default *", "1", "5", "2", "1.8", "2.2") and rows[2][0] == "cold"
    assert rows[-1][:2] == ("broken", "infeasible")
    caption = str(shown.caption)
    assert "x 10.0 against the paper's Nested at cost 1.5: default 2 s in 5 steps, cold 20 s in 5; |z| 5e-03." in caption
    assert "the strongest Nested: no solve ended at a feasible cost." in caption and "over the paper's Nested: 0.25." in caption


def test_the_longest_name_fits(tmp_path, capsys):
    """A file has 80 columns, the table has more: nothing of it is cut off."""
    names = max((name for path in REPO.glob("conf/front/*.yaml") for name in yaml.safe_load(path.read_text())), key=len)
    write_front(front(entry(names, "paper", measured(10, 9.0))), tmp_path, pixels=1)
    shown = capsys.readouterr().out
    assert f"{names} " in shown and "…" not in shown and "5e-03" in shown


@pytest.mark.parametrize(("cost", "scale"), [(1.0, "log"), (-1.0, "linear")])
def test_the_picture(tmp_path, monkeypatch, cost, scale):
    """A line for each contender, the default thickest, a ring around each point of the front; nothing in the legend is hidden."""
    drawn = []
    monkeypatch.setattr(front_report, "save", lambda figure, axes, path: drawn.append(axes))
    made = front(COLD, COLDER, entry("warm", "nested", measured(4, cost)), entry("ours", "started", measured(3, 5.0)))
    front_report.plot(made, tmp_path / "front.png", pixels=1)
    (axes,) = drawn
    widths = {line.get_label(): line.get_linewidth() for line in axes.lines}
    assert (
        set(widths) == {"paper: cold", "paper: colder", "nested: warm", "started: ours", "default"}
        and max(widths, key=widths.get) == "default"
    )
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 5
    assert set(front_report.LOOKS) == set(get_args(Family))
    (rings,) = axes.collections
    assert rings.get_offsets().tolist() == [[point.seconds, point.cost] for _, point in made.pareto]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", scale)


class Linear(nn.Module):
    """z -> 0.5 z + x, whose equilibrium is 2 x."""

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * z + x


def solves(steps: int) -> FixedPoint:
    return FixedPoint(Picard(), steps)


def made_bench(net: Linear, warm: int = 6) -> Bench:
    """The cost (z - 1)^2 from x = 0, z after some evaluations."""

    def start() -> Augmented:
        return Augmented(solves(warm)(lambda z: net.f(z, x), x).value, x, x)

    def resolve(problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        solution = FixedPoint(Picard(), 100, tol=1e-6)(lambda z: problem.f(z, x), x)
        return solution.value, solution.residual

    x = torch.zeros(2, 1)
    return Bench(InnerProblem(net.f, lambda z, x: (z - 1).square().sum(dim=1)), start, resolve)


JOINT = Joint(Plain(0.01))
COLD_SOLVER = Nested(Plain(0.1), solves(3), solves(4))
WARM_SOLVER = Nested(Plain(0.1), solves(3), solves(4), warm=True)


def test_each_family_starts_where_it_says():
    """Counted by the evaluations of f that a start takes, and told apart by its x."""
    net = Linear()

    def at(x: float, evaluations: int) -> Callable[[], Augmented]:
        def start() -> Augmented:
            given = torch.full((2, 1), x)
            return Augmented(solves(evaluations)(lambda z: net.f(z, given), given).value, 0 * given, given)

        return start

    def make() -> Bench:
        bench = made_bench(net)
        own, plain, learned = at(1.0, 7), at(2.0, 8), at(3.0, 9)
        return Bench(bench.problem, own, bench.resolve, plain=plain, learned=learned)

    still = {"paper": Nested(Plain(0.0), solves(1), solves(1)), "joint": Joint(Plain(0.0))}
    contenders = {name: Contender(name, still["paper"], (1,)) for name in ("paper", "nested", "started")}
    contenders["joint"] = Contender("joint", still["joint"], (1,))
    contenders["joint, plain"] = Contender("joint", still["joint"], (1,), start="plain")
    found = {of.name: of for of in race(make, net, contenders, 1)}
    begun = {name: (of.start, of.points[0].cost, of.points[0].evaluations) for name, of in found.items()}
    cost = {x: pytest.approx((2 * x - 1) ** 2, rel=1e-4) for x in (1.0, 2.0, 3.0)}
    assert begun["paper"] == ("zero", cost[2.0], 2), "the plain start's x, z = 0; one for z, one with a graph"
    assert begun["nested"] == ("plain", cost[2.0], 2 + 8) and begun["started"] == ("learned", cost[3.0], 2 + 9)
    assert begun["joint"] == ("own", cost[1.0], 1 + 7) and begun["joint, plain"] == ("plain", cost[2.0], 1 + 8)


def raced(repeats: int = 1, **contenders: Contender) -> dict[str, Entry]:
    net = Linear()
    found = race(lambda: made_bench(net), net, contenders, repeats)
    assert "f" not in vars(net), "the net is as it was"
    return {of.name: of for of in found}


def test_evaluations_and_backward_passes_are_counted_and_the_start_with_them():
    nested = {"cold": Contender("paper", COLD_SOLVER, (2,)), "warm": Contender("nested", WARM_SOLVER, (2,))}
    found = raced(joint=Contender("joint", JOINT, (5, 3)), **nested)
    counts = {name: [(point.steps, point.evaluations, point.backwards) for point in of.points] for name, of in found.items()}
    assert counts["joint"] == [(3, 3 + 6, 3), (5, 5 + 6, 5)]
    assert counts["cold"] == [(2, 2 * (3 + 1), 2 * (4 + 1))], "3 for z, one with a graph; 4 for mu, one for x; no start"
    assert counts["warm"] == [(2, 2 * (3 + 1) + 6, 2 * (4 + 1))]


def test_a_pass_without_a_graph_is_no_backward_pass():
    net = Linear()
    with counted(net) as passes:
        z = torch.ones(1, 1, requires_grad=True)
        net.f(z, z).sum().backward()
        with torch.no_grad():
            net.f(z, z)
    net.f(z, z).sum().backward()
    assert vars(passes) == {"evaluations": 2, "backwards": 1}


def test_the_figures_of_a_point_are_those_of_the_returned_iterate():
    (point,) = raced(joint=Contender("joint", JOINT, (20,)))["joint"].points
    bench = made_bench(Linear())
    v = Joint(Plain(0.01), max_steps=20)(bench.problem, bench.start()).v
    assert point.cost == pytest.approx(float((2 * v.x - 1).square().mean()), rel=1e-3)
    rows = bench.problem.gradients(v)
    whole = (rows.z.square() + rows.mu.square() + rows.x.square()).sum(dim=1).sqrt()
    assert point.kkt == pytest.approx(float(whole.median()), rel=1e-3)
    assert point.residuals["z"] == pytest.approx(float(((v.x - 0.5 * v.z) / (0.5 * v.z + v.x)).abs().median()), rel=1e-3)
    assert point.seconds_low <= point.seconds <= point.seconds_high and point.finite == 1.0


class Recorded(Joint):
    """A Joint that notes its solves."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        super().__init__(Plain(0.01))
        self.name, self.log = name, log

    def __call__(self, *args, **kwargs):
        self.log.append((self.name, self.max_steps))
        return super().__call__(*args, **kwargs)


def test_the_rounds_are_interleaved_after_one_solve_of_each():
    log: list[tuple[str, int]] = []
    raced(2, a=Contender("joint", Recorded("a", log), (20, 3)), b=Contender("joint", Recorded("b", log), (4,)))
    once = [("a", 3), ("a", 20), ("b", 4)]
    assert log == [*once * 3, ("a", 20), ("b", 4)], "judged, two rounds, memory at the least budget of 12 or else the largest"


def test_a_solver_that_ends_in_nan_has_no_cost():
    class Diverging(Joint):
        def __call__(self, problem, v0, observers=()):
            return super().__call__(problem, Augmented(v0.z, v0.mu, v0.x * math.nan), observers)

    (point,) = raced(bad=Contender("joint", Diverging(Plain(0.01)), (3,)))["bad"].points
    assert math.isnan(point.cost) and not point.sound


@pytest.mark.parametrize(
    ("family", "solver", "budgets", "message"),
    [
        ("joint", JOINT, (), "one or more budgets of at least 1 step"),
        ("joint", JOINT, (0, 5), "one or more budgets of at least 1 step"),
        ("paper", JOINT, (5,), r"family paper are Nested solvers, this one is Joint\(step=Plain"),
    ],
)
def test_contenders_that_cannot_be(family, solver, budgets, message):
    with pytest.raises(ValueError, match=message):
        Contender(family, solver, budgets)


@pytest.mark.parametrize(("family", "start"), [("nested", "learned"), ("started", "plain"), ("paper", "own")])
def test_a_nested_family_starts_where_it_says(family, start):
    with pytest.raises(ValueError, match=f"family {family} start at .*, not at {start}"):
        Contender(family, WARM_SOLVER, (5,), start)


DIGITS = REPO / "conf/front/digits.yaml"


@pytest.fixture(scope="module")
def started(checkpoint, tmp_path_factory) -> Path:
    """The checkpoint with a start that knows nothing beside its weights."""
    path = tmp_path_factory.mktemp("start") / "started.ckpt"
    contents = read_checkpoint(checkpoint)
    learned = LinearDecoder(4)
    draw = torch.Generator().manual_seed(0)
    hidden = LatentGenerator(4, (8, 8), (1, 8, 8), expansion=1).hidden
    rows = {
        "x": torch.randn(20, 4, generator=draw),
        "z": torch.zeros(20, hidden),
        "image": torch.randn(20, 1, 8, 8, generator=draw),
    }
    learned.fit(rows)
    start = {f"{LEARNED}{name}": tensor for name, tensor in learned.state_dict().items()}
    write_checkpoint(contents | {"state_dict": contents["state_dict"] | start}, path)
    return path


def test_front_wants_the_start_that_its_contenders_want(jiio, checkpoint, capsys):
    assert jiio("front", "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--solvers", DIGITS, "--samples", 4) == 1
    assert "our start, warm 3+3 Adam 0.1 starts at the learned start: run `jiio learn_start`" in error(capsys)


def test_front(jiio, started, capsys):
    words = ("--budgets", "[2,12]", "--samples", 4, "--repeats", 2, "--solvers", DIGITS)
    assert jiio("front", "--config", "tiny.yaml", "--ckpt_path", started, *words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    record = json.loads(Path("runs/tiny/front/front.json").read_text())
    assert list(record["contenders"]) == ["default", *yaml.safe_load(DIGITS.read_text())]
    default, cold = (record["contenders"][name] for name in ("default", "cold Adam 0.1"))
    assert [point["evaluations"] for point in default["points"]] == [2, 12] and "SelfScaled(size=1.0" in default["solver"]
    assert cold["points"][0]["evaluations"] == 2 * 19 and cold["family"] == "paper" and default["peak_mib"] > 0
    assert (record["samples"], record["repeats"], record["pixels"]) == (4, 2, 64)
    assert record["provenance"]["command"].startswith("jiio front --config tiny.yaml")
    assert f"x {record['against']['paper']['speedup']:.1f} against the paper's Nested" in shown
    assert np.asarray(Image.open("runs/tiny/front/front.png").convert("L")).std() > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--solvers", "{}"), "front needs at least one of --solvers (conf/front/) and one of --budgets"),
        (("--budgets", "[]"), "front needs at least one of --solvers (conf/front/) and one of --budgets"),
        (("--budgets", "[0]"), "a contender needs one or more budgets of at least 1 step, got [0]"),
        (("--samples", "0"), "front needs --samples, --repeats >= 1 and --skip >= 0, got 0, 5 and 0"),
        (("--skip", "-1"), "front needs --samples, --repeats >= 1 and --skip >= 0, got 16, 5 and -1"),
        (("--samples", "8", "--skip", "2"), "have 2 groups of 8 samples, 3 are wanted: set data.eval_batch_size"),
        (("--tolerance", "-1"), "front needs a --tolerance of at least 0, got -1"),
        (("--samples", "64"), "have 0 groups of 64 samples, 1 are wanted: set data.eval_batch_size"),
    ],
)
def test_one_clear_line_for_each_mistake(jiio, started, capsys, words, message):
    assert jiio("front", "--config", "tiny.yaml", "--ckpt_path", started, "--solvers", DIGITS, *words) == 1
    assert message in error(capsys)


def test_a_contender_cannot_be_called_default(jiio, checkpoint, capsys):
    Path("more.yaml").write_text(yaml.safe_dump({"default": yaml.safe_load(DIGITS.read_text())["Anderson I"]}))
    assert jiio("front", "--config", "tiny.yaml", "--ckpt_path", checkpoint, "--solvers", "more.yaml") == 1
    assert "front calls the run file's solver.test default: give that one of --solvers another name" in error(capsys)
