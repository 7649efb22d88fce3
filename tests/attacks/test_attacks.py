"""How attacks search and how they are judged."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from jiio_lightning.attacks import (
    NAMED,
    PGD,
    Attack,
    Attacked,
    AutoAttack,
    ImplicitForward,
    IntermediateStates,
    NoAttack,
    SolverAttack,
    ThreatModel,
    Verdict,
)
from jiio_lightning.core import Joint
from jiio_lightning.core.solvers import FixedPoint, LowestCost, Picard
from jiio_lightning.core.steps import Cosine, Normalised
from jiio_lightning.randomness import sample_generators
from tests.attacks.smooth import TIGHT, Begins, Smooth, target
from tests.core.modes import NoSynchronisation

BALL = ThreatModel(0.5)
THREATS = [ThreatModel(0.5, norm, box) for norm in ("l2", "linf") for box in (False, True)]


class Blackbox:
    """A stand-in for torchattacks: one step of sign ascent that calls ``backward`` and stays in the box, as the original does."""

    def __init__(self, model, norm, eps, version, n_classes, seed) -> None:
        assert norm in ("L2", "Linf") and version == "standard" and n_classes == 3
        self.model, self.eps, self.seed = model, eps, seed

    def __call__(self, image, label):
        torch.manual_seed(self.seed)
        leaf = image.clone().requires_grad_()
        F.cross_entropy(self.model(leaf), label).backward()
        return (image + self.eps * (leaf.grad.sign() + 0.01 * torch.rand_like(image))).clamp(0, 1)


@pytest.fixture
def torchattacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", SimpleNamespace(AutoAttack=Blackbox))


def attacks(threat: ThreatModel) -> list[Attack]:
    joint = Joint(threat.steepest(0.2, Cosine()), max_steps=20)
    solve = FixedPoint(Picard(), 6)
    return [
        NoAttack(),
        PGD(5, restarts=2, forward=solve, backward=solve, random_start=True),
        SolverAttack(joint, warm=solve, restarts=2),
        IntermediateStates(5, restarts=2),
        AutoAttack(),
    ]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_every_attack_stays_within_ball_and_box_and_touches_nothing(threat, torchattacks):
    given = target(threat)
    before = copy.deepcopy(given.net.state_dict())
    state = torch.get_rng_state()
    for attack in attacks(threat):
        found = attack(given)
        threat.check(given.pixels, found.delta)
        assert found.delta.dtype == torch.float64 and not found.delta.requires_grad
    assert all(tensor.equal(before[name]) for name, tensor in given.net.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in given.net.parameters())
    assert torch.get_rng_state().equal(state)


def test_the_search_never_waits_for_the_device():
    """From delta = 0, with fixed budgets; random starts are drawn on the host, and the judge solves to a tolerance."""
    solve = FixedPoint(Picard(), 6)
    for attack in (PGD(5, forward=solve, backward=solve), SolverAttack(Joint(BALL.steepest(0.2), max_steps=5), warm=solve)):
        given = target(BALL)
        with NoSynchronisation():
            attack.perturb(given, 0)


def explicit_gradient(given, delta: torch.Tensor) -> torch.Tensor:
    """Of the cross-entropy in delta, from explicit Jacobians at the equilibrium."""
    return torch.stack([gradient_row(given.net, *row) for row in zip(given.pixels + delta, given.label, strict=True)])


def gradient_row(net: Smooth, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    z = TIGHT(lambda z: net.f(z, x.unsqueeze(0)), torch.zeros(1, 5, dtype=x.dtype)).value[0].detach()
    dfdz, dfdx = torch.autograd.functional.jacobian(net.f, (z, x))
    dldz = torch.autograd.functional.jacobian(lambda z: F.cross_entropy(net.h(z), label), z)
    return torch.linalg.solve(torch.eye(5, dtype=x.dtype) - dfdz, dfdx).T @ dldz


@pytest.mark.parametrize("threat", [ThreatModel(0.5), ThreatModel(0.3, "linf", True)], ids=str)
def test_pgd_is_the_loop_by_hand(threat):
    """From 0, the fourth iterate is the one that is judged: three steps of 0.2 eps along the implicit gradient."""
    given = target(threat)
    delta = given.zero()
    for _ in range(3):
        gradient = explicit_gradient(given, delta)
        unit = gradient.sign() if threat.norm == "linf" else gradient / gradient.norm(dim=1, keepdim=True)
        delta = given.problem.project(delta + 0.2 * threat.eps * unit)
    found = PGD(4, forward=TIGHT, backward=TIGHT)(given)
    torch.testing.assert_close(found.delta, delta, rtol=1e-9, atol=1e-11)
    assert bool((found.verdict.loss > NoAttack()(given).verdict.loss).all())


def test_a_warm_pgd_goes_on_from_the_solves_before():
    """With solves of 2 steps it comes much nearer to the attack of tight solves than one that starts each at z = 0."""
    given, few = target(BALL), FixedPoint(Picard(), 2)
    exact = PGD(12, forward=TIGHT, backward=TIGHT)(given).delta
    cold, warm = (PGD(12, forward=few, backward=few, warm=warm)(given).delta for warm in (False, True))
    assert bool(((warm - exact).norm(dim=1) < 0.2 * (cold - exact).norm(dim=1)).all())


def test_a_warm_joint_attack_begins_at_the_equilibrium():
    given = target(BALL)
    for warm in (None, TIGHT):
        solver = Begins(Normalised(0.2), max_steps=1)
        SolverAttack(solver, warm=warm, random_start=True)(given)
        z, x = solver.v0.z, solver.v0.x
        assert x.equal(given.random(0)) and not solver.v0.mu.any()
        assert torch.allclose(z, given.problem.f(z, x), atol=1e-12) if warm else not z.any()


def test_the_joint_attack_finds_the_maximum_on_the_ball():
    """Its gradient there is parallel to delta: no allowed direction is left (KKT)."""
    given = target(BALL)
    found = SolverAttack(Joint(Normalised(0.2), max_steps=400, tol=1e-12))(given)
    gradient = explicit_gradient(given, found.delta)
    assert torch.allclose(found.delta.norm(dim=1), torch.tensor(0.5, dtype=torch.float64))
    assert bool((F.cosine_similarity(gradient, found.delta) > 1 - 1e-9).all())


def test_the_verdict_is_that_of_the_equilibrium():
    given = target(BALL)
    delta = given.random(0)
    verdict = given.judge(delta)
    z = torch.zeros(4, 5, dtype=torch.float64)
    for _ in range(300):
        z = given.net.f(z, given.pixels + delta)
    torch.testing.assert_close(verdict.logits, given.net.h(z), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(verdict.loss, F.cross_entropy(given.net.h(z), given.label, reduction="none"))
    assert verdict.correct.equal(given.net.h(z).argmax(dim=1) == given.label) and float(verdict.residual.max()) < 1e-13


def outcome(correct: list[bool], loss: list[float], mark: float) -> Attacked:
    size = len(loss)
    verdict = Verdict(torch.full((size, 2), mark), torch.tensor(correct), torch.tensor(loss), torch.full((size,), mark))
    return Attacked(torch.full((size, 3), mark), verdict)


def test_the_strongest_restart_of_each_sample():
    """One that fools beats one that does not, whatever its loss; else the larger cross-entropy."""
    first = outcome([True, False, True, False], [9.0, 1.0, 1.0, 3.0], 0.0)
    second = outcome([False, True, True, False], [1.0, 9.0, 2.0, 2.0], 1.0)
    kept = first.or_stronger(second)
    assert kept.delta[:, 0].tolist() == [1, 0, 1, 0]
    assert kept.verdict.correct.tolist() == [False, False, True, False] and kept.verdict.loss.tolist() == [1, 1, 2, 3]
    assert kept.verdict.residual.tolist() == kept.verdict.logits[:, 1].tolist() == [1, 0, 1, 0]


def test_restarts_never_weaken_and_are_reproducible():
    given = target(ThreatModel(0.5), size=12)
    one, five = (SolverAttack(Joint(Normalised(0.3, Cosine()), max_steps=15), restarts=n)(given) for n in (1, 5))
    assert bool((five.verdict.correct <= one.verdict.correct).all())
    same = five.verdict.correct == one.verdict.correct
    assert bool((five.verdict.loss >= one.verdict.loss)[same].all()) and bool((five.verdict.loss > one.verdict.loss).any())
    again = SolverAttack(Joint(Normalised(0.3, Cosine()), max_steps=15), restarts=5)(given)
    assert again.delta.equal(five.delta)


def test_a_random_start_is_not_the_probe_of_the_penalty():
    given = target(ThreatModel(0.5))
    probes = given.threat.draw(given.pixels, sample_generators(given.seed, 1, given.index))
    assert given.random(1).equal(given.random(1)) and not given.random(1).equal(probes)


def test_intermediate_states_in_the_limit_are_the_implicit_gradient():
    given = target(BALL)
    _, gradient = IntermediateStates(1, unroll=200, first=200)._gradient(given, given.zero())
    torch.testing.assert_close(-gradient, explicit_gradient(given, given.zero()), rtol=1e-8, atol=1e-12)


def test_intermediate_states_differentiate_the_iterations():
    given, attack = target(BALL), IntermediateStates(1, unroll=3, first=2, damping=0.7)
    direction = given.random(1)
    _, gradient = attack._gradient(given, given.zero())
    high, low = (attack._gradient(given, sign * 1e-6 * direction)[0] for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(dim=1), (high - low) / 2e-6, rtol=1e-7, atol=1e-9)


def test_the_forward_for_other_attacks_has_the_implicit_gradient():
    given = target(BALL)
    leaf = given.image.clone().requires_grad_()
    loss = F.cross_entropy(ImplicitForward(given.net, TIGHT, TIGHT)(leaf), given.label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(gradient.flatten(1), explicit_gradient(given, given.zero()), rtol=1e-9, atol=1e-12)


def test_autoattack_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ValueError, match="autoattack needs the package torchattacks: `pip install --no-deps"):
        AutoAttack()(target(BALL))


@pytest.mark.parametrize("threat", THREATS[1::2], ids=str)
def test_the_real_autoattack_fools_what_pgd_fools(threat):
    """And touches nothing. The package is no part of ``dev``: install it as the message above says."""
    pytest.importorskip("torchattacks")
    given, state = target(threat, size=6), torch.get_rng_state()
    found, pgd = AutoAttack()(given), PGD()(given)
    assert bool((found.verdict.correct <= pgd.verdict.correct).all()) and found.delta.any()
    assert torch.get_rng_state().equal(state) and all(weight.grad is None for weight in given.net.parameters())


def test_an_attack_that_cheats_is_refused():
    class Cheat(Attack):
        def perturb(self, target, restart):
            return 2 * target.random(0)

    with pytest.raises(ValueError, match="an attack left its ball"):
        Cheat()(target(ThreatModel(0.5)))


def test_names():
    assert {type(make()).__name__ for make in NAMED.values()} >= {"NoAttack", "PGD", "AutoAttack", "IntermediateStates"}
    strong = NAMED["pgd_strong"]()
    assert (strong.steps, strong.size, strong.restarts, strong.warm) == (100, 0.1, 5, True)
    assert isinstance(strong.selection, LowestCost), "the worst iterate counts, not the last"


def test_states_that_do_not_exist_cannot_count():
    with pytest.raises(ValueError, match="from first to unroll: got first 4 and unroll 3"):
        IntermediateStates(5, unroll=3, first=4)
