"""Tables 5 and 8: accuracy of three training regimes under three tests."""

from __future__ import annotations

import json
from dataclasses import dataclass

from experiments.plan import Budget, Cell, Run, Table
from experiments.tables.fits import Overrides

REGIMES = {"clean": "adversarial_clean", "PGD": "adversarial_pgd", "JIIO": "adversarial_joint"}
"""Fragments of their solvers; ``Attacked.joint`` may name another one for JIIO."""
FURTHER = {"pgd_strong": "strong PGD", "autoattack": "AutoAttack"}
COLUMNS = {"clean": "clean", "PGD": "pgd", "JIIO": "jiio"}
SUFFIX = {("pgd_strong",): "_strong", ("autoattack",): "_autoattack"}
"""Of the name of a test by its attacks."""
CURVES = {"clean": "val/loss_clean", "PGD": "val/loss_jiio", "JIIO": "val/loss_jiio"}
"""What says whether a fit still improves: the loss that it trains on."""
Accuracies = dict[str, tuple[float, float, float]]
MNIST: Accuracies = {"clean": (99.45, 80.1, 65.88), "PGD": (99.18, 96.53, 95.74), "JIIO": (99.32, 95.74, 96.63)}
CIFAR: Accuracies = {"clean": (78.47, 2.38, 3.71), "PGD": (54.91, 37.4, 36.17), "JIIO": (55.54, 37.31, 37.77)}
CIFAR_HALF: Accuracies = {"clean": (78.47, 4.54, 4.85), "PGD": (68.48, 51.77, 50.14), "JIIO": (67.79, 51.39, 51.25)}


@dataclass(frozen=True)
class Attacked:
    """How a data set's three classifiers are trained and tested under a budget.

    Args:
        text: in a sentence.
        config: run file.
        steps: of the optimiser by regime; None where the run file says it.
        overrides: of fit and test.
        images: test images.
        further: attacks beside the paper's, and the test images of each.
        joint: the fragment of JIIO's solver.
    """

    text: str
    config: str
    steps: int | None
    overrides: Overrides
    images: int
    further: tuple[tuple[str, int], ...] = ()
    joint: str = REGIMES["JIIO"]


_DIGITS: Overrides = ("--solver.train.max_steps", "2", "--solver.test.max_steps", "12")
_REDUCED: Overrides = (
    *("--model.net", "conf/model/classifier_mnist14.yaml", "--data.batch_size", "64", "--data.val_limit", "100"),
    *("--model.learning_rate", "3e-3"),
    *("--trainer.limit_val_batches", "1.0", "--trainer.check_val_every_n_epoch", "null"),
)
UNVALIDATED: Overrides = ("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1")
"""Lightning refuses a share of an epoch where epochs do not count, in runs without validation too."""
SETTINGS: dict[tuple[str, Budget], Attacked] = {
    ("MNIST", Budget.SMOKE): Attacked(
        "8x8 digits, a few steps.", "tasks/digits_adversarial.yaml", 4, _DIGITS, 20, (("pgd_strong", 5),)
    ),
    ("CIFAR-10", Budget.SMOKE): Attacked("8x8 digits, a few steps.", "tasks/digits_adversarial.yaml", 4, _DIGITS, 20),
    ("MNIST", Budget.CPU): Attacked(
        "MNIST, a reduced MDEQ (maps at 14x14 and 7x7, 16 channels), 300 steps of batch 64 in each regime, JIIO with 40 joint "
        "steps.",
        "tasks/mnist_adversarial.yaml",
        300,
        _REDUCED,
        1000,
        (("pgd_strong", 100),),
    ),
    ("MNIST", Budget.GPU): Attacked(
        "MNIST, the net of Table 9, JIIO with 80 joint steps.",
        "tasks/mnist_adversarial.yaml",
        None,
        ("--trainer", "conf/trainer/gpu.yaml"),
        10_000,
        (("pgd_strong", 1000), ("autoattack", 1000)),
        "adversarial_joint_80",
    ),
    ("MNIST", Budget.PAPER): Attacked(
        "MNIST, the net of Table 9, two GPUs (C.5), JIIO with 80 joint steps.",
        "tasks/mnist_adversarial.yaml",
        None,
        ("--trainer", "conf/trainer/2gpu_ddp.yaml", "--data.batch_size", "48"),
        10_000,
        joint="adversarial_joint_80",
    ),
    ("CIFAR-10", Budget.PAPER): Attacked(
        "CIFAR-10, the net of Table 9, three GPUs (C.5), JIIO with 80 joint steps.",
        "tasks/cifar_adversarial.yaml",
        None,
        ("--trainer", "conf/trainer/3gpu_ddp.yaml", "--data.batch_size", "32"),
        10_000,
        joint="adversarial_joint_80",
    ),
}
CAVEATS = {
    Budget.SMOKE: "A test of the machinery: no figure means anything.",
    Budget.CPU: "The paper trains its net for 10 epochs (20 on CIFAR-10); here a reduced one for minutes, one seed.",
    Budget.GPU: "One seed; the paper has several.",
    Budget.PAPER: "One seed; the paper has several.",
}


def table5(budget: Budget) -> Table:
    """MNIST and CIFAR-10 at eps = 1."""
    cells = [*_cells(budget, "MNIST", 1.0, MNIST), *_cells(budget, "CIFAR-10", 1.0, CIFAR)]
    return _table(budget, "table5", "Table 5: adversarial training, L2, eps = 1 (Sec. 4.3)", cells)


def table8(budget: Budget) -> Table:
    """CIFAR-10 at eps = 0.5."""
    cells = _cells(budget, "CIFAR-10", 0.5, CIFAR_HALF)
    return _table(budget, "table8", "Table 8: adversarial training on CIFAR-10, L2, eps = 0.5 (B.2)", cells)


def _table(budget: Budget, name: str, title: str, cells: list[Cell]) -> Table:
    settings = [f"{data}: {found.text}" for (data, kind), found in SETTINGS.items() if kind is budget]
    return Table(
        name=name,
        title=title,
        setting=(
            "Rows: how the net was trained; columns: accuracy in per cent on clean images, under PGD (20 steps of 0.2 eps, as "
            "released) and under JIIO (80 joint steps), each with z solved again at the attacked image. Every inner solve "
            "starts at the clean image's z (10 solver steps). " + " ".join(settings)
        ),
        caveat=CAVEATS[budget] + " Neither PGD nor JIIO is AutoAttack: `jiio attack --attack autoattack` is there for that.",
        cells=tuple(cells),
    )


def _cells(budget: Budget, data: str, eps: float, paper: Accuracies) -> list[Cell]:
    """A row for each regime; without runs where the budget has none for the data."""
    found = SETTINGS.get((data, budget))
    return [cell for regime in REGIMES for cell in _row(found, data, eps, regime, paper[regime])]


def _row(found: Attacked | None, data: str, eps: float, regime: str, paper: tuple[float, ...]) -> list[Cell]:
    """The paper's three columns, and where the budget has them the strong attack and the time of a training step."""
    row = f"{data}, trained {regime}"
    test = () if found is None else (_test(found, data, eps, regime, ("pgd", "jiio"), found.images),)
    cells = [
        Cell(row, column, test, f"test/accuracy_{name}", paper[place], scale=100, digits=1)
        for place, (column, name) in enumerate(COLUMNS.items())
    ]
    cells += [
        Cell(row, f"unconverged under {column}", test, f"test/unconverged_{COLUMNS[column]}", scale=100, digits=1)
        for column in COLUMNS
    ]
    for attack, images in () if found is None else found.further:
        further = _test(found, data, eps, regime, (attack,), images)
        cells.append(Cell(row, f"{FURTHER[attack]}, {images} images", (further,), f"test/accuracy_{attack}", scale=100, digits=1))
    if found is not None and found.steps is not None:
        cells.append(Cell(row, "s/training step", (_timing(found, data, eps, regime),), "train/seconds", trained=False))
    return cells


def _common(found: Attacked, eps: float, regime: str) -> Overrides:
    solver = found.joint if regime == "JIIO" else REGIMES[regime]
    return ("--solver", f"conf/solver/{solver}.yaml", "--model.eps", f"{eps:g}", *found.overrides)


def _slug(data: str, eps: float, regime: str) -> str:
    return f"{data.lower()}_{eps:g}_{regime.lower()}"


def classifier(found: Attacked, data: str, eps: float, regime: str) -> Run:
    """The fit of a classifier in one of the ``REGIMES``."""
    overrides = (*_common(found, eps, regime), *_length(found))
    return Run(f"adversarial/{_slug(data, eps, regime)}", "fit", found.config, overrides, curve=CURVES[regime])


def _test(found: Attacked, data: str, eps: float, regime: str, attacks: tuple[str, ...], images: int) -> Run:
    fit = classifier(found, data, eps, regime)
    test = (*UNVALIDATED, "--model.attacks", json.dumps(attacks), "--data.test_limit", str(images))
    name = f"{'table5' if eps == 1 else 'table8'}/{_slug(data, eps, regime)}{SUFFIX.get(attacks, '')}"
    return Run(name, "test", found.config, (*_common(found, eps, regime), *test), fit)


def _timing(found: Attacked, data: str, eps: float, regime: str) -> Run:
    """A few steps with nothing else on the machine."""
    short = (*UNVALIDATED, "--trainer.max_epochs", "-1", "--trainer.max_steps", "6", "--trainer.limit_val_batches", "0")
    watch = ("--trainer.callbacks+", "experiments.benchmarks.StepSeconds")
    return Run(
        f"table5/seconds_{_slug(data, eps, regime)}",
        "fit",
        found.config,
        (*_common(found, eps, regime), *short, *watch),
        timed=True,
    )


def _length(found: Attacked) -> Overrides:
    if found.steps is None:
        return ()
    every = str(max(1, found.steps // 10))
    return ("--trainer.max_epochs", "-1", "--trainer.max_steps", str(found.steps), "--trainer.val_check_interval", every)
