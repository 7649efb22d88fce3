"""Table 6: accuracy of few-shot learning. Table 7: what the adaptation to a task costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.plan import Budget, Cell, Picture, Run, Table
from experiments.tables.fits import Overrides

BASELINES = {
    "MAML": "maml",
    "FOMAML": "fomaml",
    "Reptile": "reptile",
    "iMAML": "imaml",
    "prototypical networks": "protonet",
}
"""Their run files, ``tasks/omniglot_NAME.yaml``, by row."""
FIXED, SHORT, THROUGH = "JIIO-DEQ (x* fixed)", "JIIO-DEQ (x* fixed), short", "JIIO-DEQ (gradient through x*), short"
JIIO = {FIXED: "jiio", SHORT: "jiio_short", THROUGH: "jiio_through"}
"""The paper's gradient, and the one that it could not take beside it after as many steps: it does not last (results/meta.md)."""
PAPER = {"MAML": 98.7, "Reptile": 97.68, "iMAML": 99.16, FIXED: 97.33}
"""Per cent."""
PAPER_MS = {"nested_20": 28948.0, "joint_100": 11836.0}
"""Milliseconds of Adam in 20 steps and of JIIO in 100."""
TOLERANCE = 0.01
"""Answers within 1 % of one another's cost are equally good."""


@dataclass(frozen=True)
class FewShotSetting:
    """What a budget means for few-shot learning.

    Args:
        text: the setting in a sentence or two.
        config: run file of JIIO-DEQ.
        learners: overrides of a method's commands, fit and test alike, by the names of its runs; a checkpoint holds no settings.
        through: overrides that add the gradient through x*.
        machine: overrides of all commands.
        fit_jiio: further ones of JIIO-DEQ's fits.
        adam_steps: of the nested baseline in Table 7.
        budgets: joint steps.
        compare: further overrides of ``jiio compare``.
        samples: tasks in a batch that is timed.
    """

    text: str
    config: str
    learners: dict[str, Overrides]
    through: Overrides
    machine: Overrides
    fit_jiio: Overrides = ()
    adam_steps: int = 20
    budgets: tuple[int, ...] = (5, 6, 7, 8, 10, 12, 16, 24, 100)
    compare: Overrides = ("--batches", "4", "--sizes", "[0.03,0.1,0.3]")
    samples: int = 16

    @property
    def longest(self) -> int:
        """The paper's number of joint steps."""
        return self.budgets[-1]


def _steps(steps: int) -> Overrides:
    """Of the optimiser, with ten validations."""
    return ("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(max(1, steps // 10)))


_ON_CPU: Overrides = ("--trainer", "conf/trainer/cpu.yaml")
_ON_GPU: Overrides = ("--trainer", "conf/trainer/gpu.yaml")
_THROUGH: Overrides = (
    *("--model.through_input", "jiio_lightning.core.FullKKT"),
    *("--model.through_input.memory", "10", "--model.through_input.restarts", "1"),
    *("--model.through_input.tol", "1e-3", "--model.through_input.ridge", "0.1"),  # results/meta.md: what smaller ones need
)
_DIGITS: Overrides = (
    *("--trainer.max_steps", "2", "--trainer.val_check_interval", "2"),
    *("--data.batch_size", "2", "--data.val_episodes", "2", "--data.test_episodes", "8"),
)
_DIGIT_EPISODES: Overrides = (
    *("--data", "conf/data/digit_episodes.yaml", *_DIGITS),
    *("--model.net.image_shape", "[1,8,8]", "--model.net.filters", "8", "--model.net.strided", "true"),
)
_JIIO_DIGITS: Overrides = (*_DIGITS, "--solver.train.max_steps", "12", "--solver.test.max_steps", "12")
_JIIO_CPU: Overrides = ("--model.net", "conf/model/conditioned_omniglot7.yaml", "--data.batch_size", "8")
_ADAM_CPU: Overrides = ("--model.net.filters", "32", "--model.learning_rate", "3e-3")
_MAML_CPU: Overrides = (*_ADAM_CPU, "--model.one_cycle", "true", "--data.batch_size", "16", *_steps(1200))

SETTINGS = {
    Budget.SMOKE: FewShotSetting(
        text="Episodes of 8x8 digits (0 to 4 to train, 5 to 9 to test), two steps of everything.",
        config="tasks/digits_meta.yaml",
        learners=dict.fromkeys(BASELINES.values(), _DIGIT_EPISODES) | dict.fromkeys(JIIO.values(), _JIIO_DIGITS),
        through=(*_THROUGH, "--model.through_input.memory", "4"),
        machine=_ON_CPU,
        adam_steps=2,
        budgets=(12,),
        compare=("--repeats", "1", "--sizes", "[0.1]"),
        samples=4,
    ),
    Budget.CPU: FewShotSetting(
        text=(
            "Omniglot at 28x28. Baselines: four convolutions of 32 filters, 800 to 1,500 steps; JIIO-DEQ: an MDEQ of 16 and 32 "
            "channels at 7x7 and 4x4, 2,400 steps of 8 tasks, 200 in the short rows."
        ),
        config="tasks/omniglot.yaml",
        learners={
            "maml": _MAML_CPU,
            "fomaml": _MAML_CPU,
            "reptile": ("--model.net.filters", "32", "--model.inner_rate", "5e-3", "--data.batch_size", "5", *_steps(1000)),
            "imaml": (
                *(*_ADAM_CPU, "--model.steps", "8", "--model.products", "3", "--model.one_cycle", "true"),
                *("--data.batch_size", "8", *_steps(800)),
            ),
            "protonet": (*_ADAM_CPU, "--model.net.strided", "true", "--data.train_ways", "30", *_steps(1500)),
            "jiio": (*_JIIO_CPU, *_steps(2400)),
            **dict.fromkeys((JIIO[SHORT], JIIO[THROUGH]), (*_JIIO_CPU, *_steps(200))),
        },
        through=_THROUGH,
        machine=_ON_CPU,
    ),
    Budget.GPU: FewShotSetting(
        text=(
            "Omniglot at 28x28, the net of Table 9 and the baselines' own, on one GPU; numbers of steps that were chosen for "
            "half an hour in all, without a GPU to measure on."
        ),
        config="tasks/omniglot.yaml",
        learners={
            **{"maml": _steps(6000), "fomaml": _steps(6000), "reptile": _steps(10_000)},
            **{"imaml": _steps(1500), "protonet": _steps(6000)},
            **{"jiio": _steps(1000), "jiio_short": _steps(300), "jiio_through": _steps(300)},
        },
        through=_THROUGH,
        machine=_ON_GPU,
    ),
    Budget.PAPER: FewShotSetting(
        text="Omniglot at 28x28, the net of Table 9 on four GPUs (C.5), 16 tasks in a batch; the baselines as published, on one.",
        config="tasks/omniglot.yaml",
        learners=dict.fromkeys((*BASELINES.values(), JIIO[FIXED], JIIO[THROUGH]), ()),
        through=_THROUGH,
        machine=_ON_GPU,
        fit_jiio=("--trainer", "conf/trainer/4gpu_ddp.yaml", "--data.batch_size", "4"),  # in each of four processes
    ),
}
CAVEATS = {
    Budget.SMOKE: "A test of the machinery: no figure means anything.",
    Budget.CPU: (
        "The paper trains JIIO-DEQ for two days on four GPUs, and quotes the baselines' papers (20,000 to 100,000 steps); here "
        "minutes on two cores, reduced nets, one seed."
    ),
    Budget.GPU: "The paper trains JIIO-DEQ for two days on four GPUs, and quotes the baselines' papers; one seed here.",
    Budget.PAPER: "One seed. The paper quotes the baselines' papers.",
}


def table6(budget: Budget) -> Table:
    """Accuracy on held-out characters, 5-way 1-shot."""
    chosen = SETTINGS[budget]
    return Table(
        name="table6",
        title="Table 6: accuracy on Omniglot, 5-way 1-shot (B.1)",
        setting=(
            f"{chosen.text} Accuracy in per cent on the query images of {_tasks(budget)}; residual: of z of those images, "
            "solved at x*. The paper holds x* fixed in the gradient, and has neither FOMAML nor prototypical networks. MAML, "
            "FOMAML, Reptile and iMAML are transductive, as in their papers: batch norm sees all query images of a task."
        ),
        caveat=f"{CAVEATS[budget]} Each of those papers has a split of the characters of its own.",
        cells=tuple(cell for row, name in (BASELINES | JIIO).items() if name in chosen.learners for cell in _row(chosen, row)),
        better=(("accuracy, %", "high"),),
    )


def table7(budget: Budget) -> Table:
    """Milliseconds of the adaptation to a batch of tasks: Adam with full solves for each step, and the joint method."""
    chosen = SETTINGS[budget]
    run = _compare(chosen)
    return Table(
        name="table7",
        title="Table 7: time of JIIO against Adam for the adaptation to a task (B.1)",
        setting=(
            f"{chosen.text} The net is Table 6's with x* fixed. Adam: {chosen.adam_steps} steps in x, each with cold solves of "
            "18 and 20 steps for z and mu (Table 9), its step size the best of those tried. JIIO: joint steps after 6 solver "
            f"steps for z at x = 0, which are in its time. Milliseconds are of a batch of {chosen.samples} tasks. Loss: the "
            "support images' cross-entropy with the penalty on x, z solved again at the returned x. In the last two rows each "
            f"method ends where it first has the loss that both reach, up to {TOLERANCE:.0%}."
        ),
        caveat=CAVEATS[budget] + " The paper does not say how many tasks its times are of, and calls Adam PGD in this table.",
        cells=tuple(_times(chosen, run)),
        pictures=(
            Picture(run, "**/cost_over_time.png", "support loss with the penalty against time"),
            Picture(run, "**/residuals.png", "residuals of z, mu and x along one joint solve"),
        ),
    )


def learner(chosen: FewShotSetting, row: str) -> Run:
    """The fit of a method."""
    name, config, overrides = _method(chosen, row)
    more = chosen.fit_jiio if row in JIIO else ()
    return Run(f"meta/{name}", "fit", config, (*overrides, *chosen.machine, *more), curve="val/loss")


def _method(chosen: FewShotSetting, row: str) -> tuple[str, str, Overrides]:
    """Name, run file and overrides of a row."""
    if row in BASELINES:
        name = BASELINES[row]
        return name, f"tasks/omniglot_{name}.yaml", chosen.learners[name]
    name = JIIO[row]
    return name, chosen.config, (*chosen.learners[name], *(chosen.through if row == THROUGH else ()))


def _row(chosen: FewShotSetting, row: str) -> Iterator[Cell]:
    name, config, overrides = _method(chosen, row)
    test = (Run(f"table6/{name}", "test", config, (*overrides, *chosen.machine), learner(chosen, row)),)
    yield Cell(row, "accuracy, %", test, "test/accuracy", PAPER.get(row), scale=100, digits=1)
    if row in JIIO:
        yield Cell(row, "support accuracy, %", test, "test/support_accuracy", scale=100, digits=1)
        yield Cell(row, "residual", test, "test/query_residual", digits=5, trained=False)


def _tasks(budget: Budget) -> str:
    return "8 tasks" if budget is Budget.SMOKE else "600 test tasks of the 423 held-out characters"


def _compare(chosen: FewShotSetting) -> Run:
    _, config, overrides = _method(chosen, FIXED)
    compared = (
        *("--baseline", "conf/baseline/adam.yaml", "--baseline.max_steps", str(chosen.adam_steps)),
        *("--budgets", json.dumps(chosen.budgets), "--tolerance", str(TOLERANCE)),
        *("--samples", str(chosen.samples), *chosen.compare),
    )
    return Run("table7", "compare", config, (*overrides, *chosen.machine, *compared), learner(chosen, FIXED))


def _times(chosen: FewShotSetting, run: Run) -> Iterator[Cell]:
    """Both methods to their ends, and where they are equally good."""
    adam, joint = f"nested_{chosen.adam_steps}", f"joint_{chosen.longest}"
    rows = {
        f"Adam, {chosen.adam_steps} steps": (f"compare/at/{adam}", None, PAPER_MS.get(adam)),
        f"JIIO, {chosen.longest} steps": (f"compare/at/{joint}", f"compare/at/{joint}/ratio", PAPER_MS.get(joint)),
        "Adam, as good": ("compare/reached/nested", None, None),
        "JIIO, as good": ("compare/reached/joint", "compare/speedup", None),
    }
    for row, (at, ratio, paper) in rows.items():
        yield Cell(row, "steps", (run,), f"{at}/steps", digits=0, trained=False)
        yield Cell(row, "ms", (run,), f"{at}/seconds", paper, scale=1000, digits=0, trained=False)
        if ratio is not None:
            times = None if paper is None else round(PAPER_MS["nested_20"] / paper, 2)
            yield Cell(row, "times faster than Adam", (run,), ratio, times, digits=1, trained=False)
        yield Cell(row, "loss", (run,), f"{at}/cost", digits=4, trained=False)
        yield Cell(row, "support accuracy, %", (run,), f"{at}/support_accuracy", scale=100, digits=1, trained=False)
        yield Cell(row, "query accuracy, %", (run,), f"{at}/accuracy", scale=100, digits=1, trained=False)
