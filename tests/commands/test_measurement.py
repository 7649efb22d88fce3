"""How solvers are measured: what counts as their time, the passes through f, and the costs of what they return."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from jiio_lightning.commands.comparison import Point
from jiio_lightning.commands.contenders import Contender, describe, paper_baseline, with_budget
from jiio_lightning.commands.measurement import LONG, Trial, counted, mean, measure, peak_mib
from jiio_lightning.core import Augmented, InnerProblem, Joint, Nested
from jiio_lightning.core.solvers import FixedPoint, Picard
from jiio_lightning.core.solvers.selection import Last
from jiio_lightning.core.steps import Adam, Cosine, Normalised, Plain
from jiio_lightning.tasks import AdversarialTraining
from tests.attacks.smooth import Smooth
from tests.commands.test_comparison import point
from tests.tasks.test_generation import batch, inject, task


def solves(steps: int) -> FixedPoint:
    return FixedPoint(Picard(), steps)


class Linear(nn.Module):
    """z -> 0.5 z + x, whose equilibrium is 2 x."""

    def f(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * z + x


class Task(nn.Module):
    """The cost (z - 1)^2; training starts at x = 0 after 6 evaluations, the learned start is x = 3 after 9."""

    def __init__(self, learned: bool = False, evaluations: int = 6) -> None:
        super().__init__()
        self.net = Linear()
        self.device = torch.device("cpu")
        self.injected = SimpleNamespace(learned_start=learned, resolve=self.resolve)
        self.learned_start = SimpleNamespace(fitted=True)
        self.evaluations = evaluations

    def problem(self, batch: None) -> InnerProblem:
        return InnerProblem(self.net.f, lambda z, x: (z - 1).square().sum(dim=1))

    def start(self, batch: None) -> Augmented:
        return self.at(0.0, self.evaluations)

    def at_learned_start(self, batch: None) -> Augmented:
        return self.at(3.0, 9)

    def at(self, where: float, evaluations: int) -> Augmented:
        x = torch.full((2, 1), where)
        return Augmented(solves(evaluations)(lambda z: self.net.f(z, x), torch.zeros_like(x)).value, torch.zeros_like(x), x)

    def resolve(self, problem: InnerProblem, x: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        solution = FixedPoint(Picard(), 100, tol=1e-6)(lambda z: problem.f(z, x), x)
        return solution.value, solution.residual

    def evaluate(self, batch: None, problem: InnerProblem, z: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"twice": 2 * problem.loss(z, x)}


JOINT = Joint(Plain(0.01))
COLD = Nested(Plain(0.1), solves(3), solves(4))
WARM = Nested(Plain(0.1), solves(3), solves(4), warm=True)


def measured(model: Task | None = None, repeats: int = 1, **contenders: Contender) -> dict[str, list[Point]]:
    model = Task() if model is None else model
    found = measure(model, None, contenders, repeats)
    assert "f" not in vars(model.net), "the net is as it was"
    return found


@pytest.mark.parametrize("learned", [False, True])
def test_each_family_starts_where_it_says(learned):
    """Told by the evaluations of f that a start takes, and by its x."""
    still = Nested(Plain(0.0), solves(1), solves(1))
    contenders = {family: Contender(family, still, (1,)) for family in ("paper", "nested", "learned")}
    contenders |= {"joint": Contender("joint", Joint(Plain(0.0)), (1,))}
    contenders |= {"joint, training": Contender("joint", Joint(Plain(0.0)), (1,), start="training")}
    begun = {name: (at.cost, at.evaluations) for name, (at,) in measured(Task(learned), **contenders).items()}
    zero, three = pytest.approx(1.0), pytest.approx(25.0, rel=1e-4)
    assert begun["paper"] == (zero, 2), "x of training, z = 0: one for z, one with a graph"
    assert begun["nested"] == (zero, 2 + 6) and begun["learned"] == (three, 2 + 9)
    assert begun["joint"] == ((three, 1 + 9) if learned else (zero, 1 + 6)) and begun["joint, training"] == (zero, 1 + 6)
    trial = Trial(Task(learned), None, {})
    assert [trial.start(one) for one in contenders.values()] == [
        "zero",
        "training",
        "learned",
        "learned" if learned else "training",
        "training",
    ]


def test_evaluations_and_backward_passes_are_counted_and_the_start_with_them():
    nested = {"cold": Contender("paper", COLD, (2, 1)), "warm": Contender("nested", WARM, (2,))}
    found = measured(joint=Contender("joint", JOINT, (5, 3)), **nested)
    counts = {name: [(at.steps, at.evaluations, at.backwards) for at in points] for name, points in found.items()}
    assert counts["joint"] == [(3, 3 + 6, 3), (5, 5 + 6, 5)]
    assert counts["cold"] == [(k, k * (3 + 1), k * (4 + 1)) for k in (1, 2)], "3 for z, one with a graph; 4 for mu, one for x"
    assert counts["warm"] == [(2, 2 * (3 + 1) + 6, 2 * (4 + 1))]


def test_a_pass_without_a_graph_is_no_backward_pass():
    net = Linear()
    with counted(net) as passes:
        z = torch.ones(1, 1, requires_grad=True)
        net.f(z, z).sum().backward()
        with torch.no_grad():
            net.f(z, z)
    net.f(z, z).sum().backward()
    assert passes == {"evaluations": 2, "backwards": 1}


@pytest.mark.parametrize("selection", [None, Last()])
def test_an_anytime_method_is_solved_once_for_all_budgets(selection):
    """And each of them is what a solve of its own returns; a schedule that depends on the budget needs those."""
    solver = Nested(Adam(0.9), solves(3), solves(4), warm=True, selection=selection)
    contender = Contender("paper", solver, (7, 1, 4))
    assert contender.budgets == (1, 4, 7) and contender.anytime
    trial = Trial(Task(), None, {})
    for solve, budget in zip(trial.solves(contender), contender.budgets, strict=True):
        alone = trial.solve(contender, budget).solution
        assert torch.equal(solve.solution.v.pack(), alone.v.pack()) and torch.equal(solve.solution.residuals, alone.residuals)
        assert solve.solution.num_steps == budget and torch.equal(solve.solution.finite, alone.finite)
    assert not Contender("nested", Nested(Adam(0.9, schedule=Cosine()), solves(3), solves(4)), (7,)).anytime
    assert not Contender("joint", JOINT, (7,)).anytime


def test_a_point_is_of_the_returned_iterate():
    ((at,),) = measured(joint=Contender("joint", JOINT, (20,))).values()
    model = Task()
    v = with_budget(JOINT, 20)(model.problem(None), model.start(None)).v
    assert at.cost == pytest.approx(float((2 * v.x - 1).square().mean()), rel=1e-3), "feasible: at z re-solved"
    assert at.metrics == {"twice": pytest.approx(2 * at.cost)} and at.resolve_residual < 1e-6
    rows = model.problem(None).gradients(v)
    whole = (rows.z.square() + rows.mu.square() + rows.x.square()).sum(dim=1).sqrt()
    assert at.kkt == pytest.approx(float(whole.median()), rel=1e-3)
    assert at.residuals["z"] == pytest.approx(float(((v.x - 0.5 * v.z) / (0.5 * v.z + v.x)).abs().median()), rel=1e-3)
    assert at.seconds_fastest <= at.seconds <= at.seconds_slowest and at.finite == 1.0


def test_a_solver_is_charged_for_its_start():
    class Slow(Task):
        def start(self, batch: None) -> Augmented:
            time.sleep(0.1)
            return super().start(batch)

    found = measured(Slow(), joint=Contender("joint", JOINT, (1,)), warm=Contender("nested", WARM, (1, 2)))
    assert all(at.seconds > 0.1 for points in found.values() for at in points)
    assert found["warm"][0].seconds < found["warm"][1].seconds


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
    contenders = {"a": Contender("joint", Recorded("a", log), (20, 3)), "b": Contender("joint", Recorded("b", log), (4,))}
    measured(repeats=2, **contenders)
    assert log == [("a", 3), ("a", 20), ("b", 4)] * 3
    trial = Trial(Task(), None, {})
    log.clear()
    assert all(trial.peak_mib(one) > 0 for one in contenders.values())
    assert log == [("a", 20), ("b", 4)], "memory at the least budget of 12, or else the largest"


class Clocked(Nested):
    """A Nested solver that seems to take some seconds."""

    def __init__(self, seconds: float, log: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(Plain(0.1), solves(1), solves(1))
        self.seconds, self.log, self.patch = seconds, log, monkeypatch

    def __call__(self, *args, **kwargs):
        self.log.append(self.seconds)
        now = time.perf_counter()
        self.patch.setattr(time, "perf_counter", lambda: now + self.seconds)
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5 * LONG, 3), (2 * LONG, 1)])
def test_a_long_anytime_solve_is_timed_once(monkeypatch, seconds, rounds):
    """The solve that is judged is the first round."""
    log: list[float] = []
    measured(repeats=3, slow=Contender("nested", Clocked(seconds, log, monkeypatch), (1, 2)))
    assert len(log) == rounds


def test_a_solver_that_ends_in_nan_has_no_cost():
    class Diverging(Joint):
        def __call__(self, problem, v0, observers=()):
            return super().__call__(problem, Augmented(v0.z, v0.mu, v0.x * math.nan), observers)

    ((at,),) = measured(bad=Contender("joint", Diverging(Plain(0.01)), (3,))).values()
    assert math.isnan(at.cost) and not at.sound and at.metrics == {}


def test_batches_are_averaged_place_by_place():
    made = mean([point(1, -1.0, 8, 1e-6, accuracy=0.5), point(3, -2.0, 8, 1e-5, accuracy=0.25)])
    assert (made.seconds, made.cost, made.steps, made.resolve_residual) == (2, -1.5, 8, 1e-5)
    assert made.metrics == {"accuracy": 0.375} and made.residuals == {"z": 1e-3, "mu": 0.1, "x": 0.2}
    assert math.isnan(mean([point(1, math.nan), point(1, 1.0, accuracy=1.0)]).metrics["accuracy"])


def test_residuals_of_the_largest_solve():
    """Of a task, with a loss gradient that is taken in each step."""
    model = task().eval()
    inject(model)
    medians = Trial(model, batch(), {}).residuals(Contender("joint", Joint(max_steps=2), (3, 5)))
    assert set(medians) == {"z", "mu", "x"} and all(len(values) == 5 for values in medians.values())
    assert medians["z"][-1] < medians["z"][0] and not torch.tensor(medians["z"]).isnan().any()


def test_a_solver_is_not_changed_by_its_measurement():
    joint, nested = Joint(max_steps=7), Nested(Plain(0.1), solves(3), solves(4), max_steps=9)
    measured(joint=Contender("joint", joint, (2, 1)), nested=Contender("paper", nested, (2,)))
    assert joint.max_steps == 7 and nested.max_steps == 9 and with_budget(joint, 3).max_steps == 3


def test_the_papers_baselines():
    adam = paper_baseline(task())
    assert list(adam) == ["adam_0.1", "adam_0.3", "adam_1"] and adam["adam_0.3"].budgets == tuple(range(1, 41))
    text = describe(adam["adam_0.1"].solver)
    assert text.startswith("Nested(step=Adam(size=0.1, ")
    assert "forward=FixedPoint(method=Anderson(type=2, memory=6" in text and "max_steps=18" in text and "warm=False" in text
    pgd = paper_baseline(AdversarialTraining(Smooth(), eps=0.5))
    assert list(pgd) == ["pgd_0.2", "pgd_0.4", "pgd_1"] and pgd["pgd_0.2"].budgets[-1] == 20
    assert [isinstance(one.solver.step, Normalised) and one.solver.step.size for one in pgd.values()] == [0.1, 0.2, 0.5]


@pytest.mark.parametrize(
    ("family", "solver", "budgets", "message"),
    [
        ("joint", JOINT, (), "a contender needs one or more budgets"),
        ("paper", JOINT, (5,), r"family paper are Nested solvers, this one is Joint\(step=Plain"),
    ],
)
def test_contenders_that_cannot_be(family, solver, budgets, message):
    with pytest.raises(ValueError, match=message):
        Contender(family, solver, budgets)


def allocate(device: str = "cpu") -> None:
    for _ in range(3):
        torch.zeros(2**20, device=device)  # 4 MiB each, freed before the next


def test_peak_mib_counts_live_memory_and_not_the_sum_of_allocations():
    assert 3.9 < peak_mib(allocate) < 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_what_was_there_does_not_count():
    kept = torch.zeros(2**24, device="cuda")
    assert 3.9 < peak_mib(lambda: allocate("cuda"), kept.device) < 6
