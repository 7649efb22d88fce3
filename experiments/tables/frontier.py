"""The frontier: what every solver setting reaches in which time, on the nets of the other tables. The paper has no such table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from experiments.plan import Budget, Cell, Choice, Picture, Run, Table
from experiments.tables import adversarial, attack_speed, fits, inverse, meta
from jiio_lightning.commands.front import RIVALS


@dataclass(frozen=True)
class Scale:
    """How solvers are measured under a budget.

    Args:
        samples: in the batch of each problem.
        skip: batches of so many samples before it: the default solvers were chosen on the first ones.
        examples: training samples that each start is learned from.
        budgets: steps of the default solver.
        fragments: names of the contenders' files in ``conf/front``, by problem; a problem without one has its own.
        more: further overrides of all commands.
    """

    samples: dict[str, int]
    skip: dict[str, int]
    examples: dict[str, int]
    budgets: dict[str, tuple[int, ...]]
    fragments: dict[str, str]
    more: fits.Overrides = ()


_STARTED = ("--solver", "conf/solver/joint_started.yaml")
_TOLERANCE = ("--tolerance", "0.01")
"""Reconstructions within 1 % of one another's error are equally good."""
_LATENTS = (3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 40)
_FULL = Scale(
    samples={"generator": 16, "inpainting": 16, "attack": 64, "meta": 16},
    skip={"generator": 4, "inpainting": 4, "attack": 2, "meta": 2},
    examples={"generator": 400, "attack": 1000, "meta": 1600},
    budgets={
        "generator": _LATENTS,
        "inpainting": _LATENTS,
        "attack": (4, 5, 6, 7, 8, 10, 12, 16, 24),
        "meta": (3, 4, 5, 6, 7, 8, 10, 12, 16),
    },
    fragments={"generator": "generator", "inpainting": "generator", "attack": "attack", "meta": "meta"},
)
MEASURED = {
    Budget.SMOKE: Scale(
        samples={"generator": 8, "inpainting": 8, "attack": 8, "meta": 2},
        skip=dict.fromkeys(_FULL.skip, 1),
        examples=dict.fromkeys(_FULL.examples, 64),
        budgets=dict.fromkeys(_FULL.budgets, (2, 12)),
        fragments=dict.fromkeys(_FULL.fragments, "digits"),
        more=("--repeats", "1"),
    ),
    Budget.CPU: replace(_FULL, more=("--repeats", "3")),
    Budget.GPU: _FULL,
    Budget.PAPER: _FULL,
}


def frontier(budget: Budget) -> Table:
    """Time, cost, memory and violation of the default solver beside the paper's Nested and the strongest one, by problem."""
    runs = {
        "generator": _generator(budget),
        "inpainting": _inpainting(budget),
        "attack": _attack(budget),
        "meta": _meta(budget),
    }
    return Table(
        name="frontier",
        title="The frontier: feasible cost against time of every solver setting",
        setting=(
            "Default: the test solver of conf/solver/joint_started.yaml (generator, inpainting), adversarial_started.yaml "
            "(attack) and meta_started.yaml, from a start that `jiio learn_start` has learned; 6 solver steps for z at the start "
            "of an attack, or at x = 0 of a few-shot task, are in all times but the paper's. The paper's Nested: cold solves of "
            "18 and 20 steps for each step in x, the best of its step sizes; the strongest Nested: the fastest of those with "
            "warm, shorter solves (conf/front), from where training starts, and from our learned start: the first two ratios "
            "are of start and solver together, the third of the solver alone, and learning a start, once for a net, is in none. "
            "Each default and its rival are timed to the lowest feasible cost that both reach, up to 1 % "
            f"(attack: {attack_speed.TOLERANCE:.1%}), a median of interleaved rounds, for a whole batch; the violation is the "
            "relative residual of the z that the default returns there. The samples are not those that the defaults were "
            "chosen on, the nets are. "
            f"Generator and inpainting: {fits.setting(budget).text} Attack: {_attacked(budget).text} "
            f"Meta-learning: {meta.SETTINGS[budget].text}"
        ),
        caveat=f"{fits.CAVEATS[budget]} The paper compares with cold Nested solves only.",
        cells=tuple(cell for problem, run in runs.items() for cell in _cells(problem, run)),
        pictures=tuple(Picture(run, "**/front.png", f"{problem}: feasible cost against time") for problem, run in runs.items()),
    )


def _generator(budget: Budget) -> Run:
    chosen = fits.setting(budget)
    return _front(
        budget,
        "generator",
        chosen.nets["jiio"].config,
        (*_STARTED, *chosen.common, *_TOLERANCE),
        _generator_start(budget),
    )


def _generator_start(budget: Budget) -> Run:
    chosen = fits.setting(budget)
    return _start(budget, "generator", chosen.nets["jiio"].config, chosen.common, fits.training(budget, "jiio"))


def _inpainting(budget: Budget) -> Run:
    """The same weights and the same learned start."""
    chosen = fits.setting(budget)
    problem = (*chosen.decoders.get("jiio", ()), *inverse.OPERATORS["inpainting"], *_STARTED)
    overrides = (*problem, "--data.test_limit", str(chosen.inverse_images), *chosen.common, *_TOLERANCE)
    return _front(budget, "inpainting", chosen.unsupervised, overrides, _generator_start(budget))


def _attack(budget: Budget) -> Run:
    """As in Table 2, of the classifier that JIIO has trained."""
    found = _attacked(budget)
    words = ("--tolerance", str(attack_speed.TOLERANCE))
    trained = adversarial.classifier(found, "MNIST", 1.0, "JIIO")
    start = _start(budget, "attack", found.config, attack_speed.attacking(found), trained)
    return _front(budget, "attack", found.config, (*attack_speed.attacking(found, "adversarial_started"), *words), start)


def _attacked(budget: Budget) -> adversarial.Attacked:
    return adversarial.SETTINGS["MNIST", budget]


def _meta(budget: Budget) -> Run:
    """As in Table 7."""
    chosen = meta.SETTINGS[budget]
    learner = (*chosen.learners[meta.JIIO[meta.FIXED]], *chosen.machine)
    start = _start(budget, "meta", chosen.config, learner, meta.learner(chosen, meta.FIXED))
    words = ("--solver", "conf/solver/meta_started.yaml", "--tolerance", str(meta.TOLERANCE))
    return _front(budget, "meta", chosen.config, (*learner, *words), start)


def _start(budget: Budget, problem: str, config: str, overrides: fits.Overrides, weights: Run | Choice) -> Run:
    """Weights with a learned start beside them."""
    words = ("--samples", str(MEASURED[budget].examples[problem]), "--out", "started/last.ckpt")
    return Run(f"frontier/{problem}_start", "learn_start", config, (*overrides, *words), weights)


def _front(budget: Budget, problem: str, config: str, overrides: fits.Overrides, weights: Run | Choice) -> Run:
    found = MEASURED[budget]
    words = (
        *("--solvers", f"conf/front/{found.fragments[problem]}.yaml", "--budgets", json.dumps(found.budgets[problem])),
        *("--samples", str(found.samples[problem]), "--skip", str(found.skip[problem]), *found.more),
    )
    return Run(f"frontier/{problem}", "front", config, (*overrides, *words), weights)


def _cells(problem: str, run: Run) -> Iterator[Cell]:
    """The default and each rival where they are first at their target; then memory and the violation there."""
    for family, rival in RIVALS.items():
        at = f"front/against/{family}"
        for method, column in (("joint", f"default, against {rival}"), ("nested", rival)):
            reached = f"{at}/reached/{method}"
            yield Cell(problem, f"{column}, ms", (run,), f"{reached}/seconds", scale=1000, digits=0, trained=False)
            yield Cell(problem, f"{column}, cost", (run,), f"{reached}/cost", digits=4, trained=False)
        yield Cell(problem, f"times faster than {rival}", (run,), f"{at}/speedup", digits=1, trained=False)
    yield Cell(problem, "memory over the paper's Nested", (run,), "front/memory", digits=2, trained=False)
    assert isinstance(run.weights, Run)
    yield Cell(problem, "learning the start, s", (run.weights,), "learn_start/seconds", digits=0, trained=False)
    yield Cell(problem, "violation, %", (run,), "front/against/paper/violation", scale=100, digits=3, trained=False)
