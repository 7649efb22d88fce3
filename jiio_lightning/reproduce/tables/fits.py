"""The trained generators that several tables and figures share, and what each budget means for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from jiio_lightning.reproduce.plan import Budget, Choice, File, Run

Overrides = tuple[str, ...]

CAVEATS = {
    Budget.SMOKE: "A test of the machinery: nets of 8x8 digits after a few steps. No figure means anything.",
    Budget.CPU: (
        "The paper has CelebA at 64x64, 4-scale nets with 128 latent numbers and 50,000 steps on four GPUs; here MNIST, small "
        "nets with 16 and minutes on two cores. Values do not compare; orders and ratios may."
    ),
    Budget.GPU: "The paper has CelebA and 50,000 steps on four GPUs; here other aligned faces at 64x64 and half an hour on one.",
    Budget.PAPER: "The paper's data (crop 148), nets, batch and steps.",
}


@dataclass(frozen=True)
class Trained:
    """How a net is trained under a budget.

    Args:
        config: its run file.
        steps: of the optimiser, for each trial.
        rates: learning rates that are tried; the one with the lowest validation error counts.
        overrides: further ones.
    """

    config: str
    steps: int
    rates: tuple[float, ...] = (1e-3,)
    overrides: Overrides = ()


@dataclass(frozen=True)
class Setting:
    """What a budget means for generators and inverse problems.

    Args:
        text: the setting in a sentence.
        nets: how each is trained, by name.
        common: overrides of every command: data and machine.
        validations: of a fit, evenly spread.
        evaluation: fragment with the callbacks of a test, by its stem: ``table1``.
        features: run file of the feature extractor; None for Inception's.
        metric: of the Frechet distance.
        joint_steps: of a solve in evaluation.
        images: test images.
    """

    text: str
    nets: dict[str, Trained]
    family: str
    metric: str
    common: Overrides = ()
    validations: int = 10
    features: Trained | None = None
    joint_steps: int = 100
    images: int = 1000
    adam_steps: int = 40
    compare: dict[str, Overrides] = field(default_factory=dict)


BASELINE_RATES = (5e-4, 2e-3, 8e-3)
"""Learning rates that a baseline is tuned over."""

_DIGITS_RAE: Overrides = (
    *("--model.latent_regularizer", "jiio_lightning.tasks.Deterministic"),
    *("--model.encoder.variational", "false"),
)
_FEW: Overrides = ("--solver.train.max_steps", "4", "--solver.test.max_steps", "4")

SETTINGS: dict[Budget, Setting] = {
    Budget.SMOKE: Setting(
        text="8x8 digits, a few steps of everything.",
        nets={
            "jiio": Trained("tasks/digits.yaml", 4, overrides=_FEW),
            "vae": Trained("tasks/digits_vae.yaml", 4),
            "rae": Trained("tasks/digits_vae.yaml", 4, overrides=_DIGITS_RAE),
            "mdeq_vae": Trained("tasks/digits_mdeq_vae.yaml", 4),
        },
        family="digits",
        metric="frechet_digits_cnn64",
        validations=1,
        features=Trained("tasks/digits_features.yaml", 20),
        joint_steps=4,
        images=40,
        adam_steps=2,
        compare={
            "one": ("--samples", "1", "--batches", "3", "--repeats", "1", "--sizes", "[0.3]"),
            "many": ("--samples", "16", "--repeats", "1", "--sizes", "[0.3]"),
        },
    ),
    Budget.CPU: Setting(
        text="MNIST at 28x28, 16 latent numbers, MDEQs with channels (16, 32) at 14x14 and 7x7.",
        nets={
            "jiio": Trained("tasks/mnist.yaml", 600, (3e-3,), ("--solver.train.max_steps", "40")),
            "vae": Trained("tasks/mnist_vae.yaml", 1500, BASELINE_RATES),
            "rae": Trained("tasks/mnist_rae.yaml", 1500, BASELINE_RATES),
            "mdeq_vae": Trained("tasks/mnist_mdeq_vae.yaml", 250, BASELINE_RATES),
        },
        family="mnist",
        metric="frechet_mnist_cnn64",
        features=Trained("tasks/mnist_features.yaml", 600, (5e-3,)),
        compare={
            "one": ("--samples", "1", "--batches", "200", "--repeats", "1", "--every", "4", "--sizes", "[0.3]"),
            "many": ("--samples", "16", "--batches", "4", "--repeats", "3", "--sizes", "[0.1,0.3,1.0]"),
        },
    ),
}


def setting(budget: Budget) -> Setting:
    """Of a budget; without one of its own a budget has the next smaller one's."""
    return SETTINGS[budget]


def training(budget: Budget, name: str) -> Run | Choice:
    """The fits of a generator: one, or one for each learning rate."""
    chosen = setting(budget)
    trained = chosen.nets[name]
    runs = tuple(_fit(f"generators/{name}_{rate:g}", trained, rate, chosen) for rate in trained.rates)
    return runs[0] if len(runs) == 1 else Choice(runs, "val/error")


def extractor(budget: Budget) -> tuple[File, ...]:
    """The feature extractor, where a test expects its file."""
    chosen = setting(budget)
    if chosen.features is None:
        return ()
    run = _fit("features", chosen.features, chosen.features.rates[0], chosen, curve="val/loss")
    return (File(f"runs/{chosen.family}_features/features.pt", run, "features.pt"),)


def joint_test(budget: Budget) -> Overrides:
    """Overrides of an evaluation by the joint method."""
    chosen = setting(budget)
    return ("--solver.test.max_steps", str(chosen.joint_steps), "--data.test_limit", str(chosen.images))


def _fit(name: str, trained: Trained, rate: float, chosen: Setting, curve: str = "val/error") -> Run:
    overrides = (
        *("--model.learning_rate", f"{rate:g}", "--trainer.max_steps", str(trained.steps)),
        *("--trainer.val_check_interval", str(max(1, trained.steps // chosen.validations))),
        *trained.overrides,
        *chosen.common,
    )
    return Run(name, "fit", trained.config, overrides, curve=curve)
