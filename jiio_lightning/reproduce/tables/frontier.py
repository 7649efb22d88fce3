"""The frontier: what every solver setting reaches in which time, on the nets of the other tables. The paper has no such table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from jiio_lightning.bench.front import RIVALS
from jiio_lightning.reproduce.plan import Budget, Cell, Choice, Picture, Run, Table
from jiio_lightning.reproduce.tables import adversarial, attack_speed, fits, inverse, meta


@dataclass(frozen=True)
class Scale:
    """How solvers are measured under a budget.

    Args:
        samples: in the batch of each problem.
        skip: batches of so many samples before it: the default solvers were chosen on the first ones.
        budgets: steps of the default solver.
        fragments: names of the contenders' files in ``conf/front``, by problem; a problem without one has its own.
        more: further overrides of all commands.
    """

    samples: dict[str, int]
    skip: dict[str, int]
    budgets: dict[str, tuple[int, ...]]
    fragments: dict[str, str]
    more: fits.Overrides = ()


_LATENT_SOLVER = ("--solver", "conf/solver/joint.yaml", "--solver.test.step.forget", "0.4")
"""What it forgets is for 40 steps; these budgets are shorter."""
_TOLERANCE = ("--tolerance", "0.01")
"""Reconstructions within 1 % of one another's error are equally good."""
_LATENTS = (6, 8, 10, 12, 14, 16, 20, 24, 30, 40, 60)
_FULL = Scale(
    samples={"generator": 16, "inpainting": 16, "attack": 64, "meta": 16},
    skip={"generator": 4, "inpainting": 4, "attack": 2, "meta": 2},
    budgets={
        "generator": _LATENTS,
        "inpainting": _LATENTS,
        "attack": (8, 10, 12, 14, 16, 20, 24, 32),
        "meta": (5, 6, 7, 8, 10, 12, 16, 24),
    },
    fragments={"generator": "generator", "inpainting": "generator", "attack": "attack", "meta": "meta"},
)
MEASURED = {
    Budget.SMOKE: Scale(
        samples={"generator": 8, "inpainting": 8, "attack": 8, "meta": 2},
        skip=dict.fromkeys(_FULL.skip, 1),
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
            "Default: the test solver of conf/solver/joint.yaml (generator, inpainting; forget 0.4), "
            "adversarial_joint_fast.yaml (attack, after 6 solver steps for z at the clean image, which are in its time) and "
            "meta.yaml (the same at x = 0). The paper's Nested: cold solves of 18 and 20 steps for each step in x, the best of "
            "its step sizes; the strongest Nested: the fastest of those with warm, shorter solves (conf/front). Each default and "
            "its rival are timed to the lowest feasible cost that both reach, up to 1 % "
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
        (*_LATENT_SOLVER, *chosen.common, *_TOLERANCE),
        fits.training(budget, "jiio"),
    )


def _inpainting(budget: Budget) -> Run:
    """The same weights."""
    chosen = fits.setting(budget)
    problem = (*chosen.decoders.get("jiio", ()), *inverse.OPERATORS["inpainting"], *_LATENT_SOLVER)
    overrides = (*problem, "--data.test_limit", str(chosen.inverse_images), *chosen.common, *_TOLERANCE)
    return _front(budget, "inpainting", chosen.unsupervised, overrides, fits.training(budget, "jiio"))


def _attack(budget: Budget) -> Run:
    """As in Table 2, of the classifier that JIIO has trained."""
    found = _attacked(budget)
    words = ("--tolerance", str(attack_speed.TOLERANCE))
    weights = adversarial.classifier(found, "MNIST", 1.0, "JIIO")
    return _front(budget, "attack", found.config, (*attack_speed.attacking(found), *words), weights)


def _attacked(budget: Budget) -> adversarial.Attacked:
    return adversarial.SETTINGS["MNIST", budget]


def _meta(budget: Budget) -> Run:
    """As in Table 7."""
    chosen = meta.SETTINGS[budget]
    overrides = (*chosen.learners[meta.JIIO[meta.FIXED]], *chosen.machine, "--tolerance", str(meta.TOLERANCE))
    return _front(budget, "meta", chosen.config, overrides, meta.learner(chosen, meta.FIXED))


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
    yield Cell(problem, "violation, %", (run,), "front/against/paper/violation", scale=100, digits=3, trained=False)
