"""The trained generators that several tables and figures share, and what each budget means for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from experiments.plan import Budget, Choice, File, Run

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
        family: of run files and fragments.
        metric: of the Frechet distance.
        unsupervised: run file that re-uses a generator for an inverse problem.
        adam: overrides of the nested baseline that takes its solver's place.
        decoders: overrides that give it the net of a generator that is not JIIO's.
        common: overrides of every command: data and machine.
        validations: of a fit, evenly spread.
        features: run file of the feature extractor; None for Inception's.
        joint_steps: of a solve in evaluation.
        images: test images.
        inverse_images: test images of inverse problems.
        latents: training images to whose latents the density of Fig. 2 is fitted.
        adam_steps: of the nested baseline.
        compare: overrides of ``jiio compare`` for single images and for batches.
    """

    text: str
    nets: dict[str, Trained]
    family: str
    metric: str
    unsupervised: str
    adam: Overrides
    decoders: dict[str, Overrides]
    common: Overrides = ()
    validations: int = 10
    features: Trained | None = None
    joint_steps: int = 100
    images: int = 1000
    inverse_images: int = 1000
    latents: int = 2000
    adam_steps: int = 40
    compare: dict[str, Overrides] = field(default_factory=dict)


BASELINE_RATES = (5e-4, 2e-3, 8e-3)
"""Learning rates that a baseline is tuned over."""

_RAE: Overrides = (
    *("--model.latent_regularizer", "experiments.baselines.Deterministic"),
    *("--model.latent_regularizer.init_args.latent", "0.039", "--model.latent_regularizer.init_args.decoder", "3.1e-4"),
    *("--model.encoder.init_args.variational", "false"),
)
_AE: Overrides = (
    "--model.latent_regularizer",
    "experiments.baselines.Unregularised",
    "--model.encoder.init_args.variational",
    "false",
)
_ON_DIGITS: Overrides = ("--data", "jiio_lightning.data.Digits")
_FEWER: Overrides = ("--data.val_limit", "250")
_FEW: Overrides = ("--solver.train.max_steps", "4", "--solver.test.max_steps", "4")


def _faces(text: str, common: Overrides, scale: float, validations: int) -> Setting:
    """The paper's nets and run files; ``scale`` is on its numbers of steps."""

    def net(config: str, steps: int, overrides: Overrides = ()) -> Trained:
        return Trained(config, max(1, round(scale * steps)), overrides=overrides)

    supervised: Overrides = (
        *("--model.net", "conf/model/mdeq_celeba64.yaml", "--solver", "conf/solver/paper_generation_100.yaml"),
        *("--data", "jiio_lightning.data.CelebA", "--jacobian.coefficient", "2.0"),  # C.4, C.5
    )
    return Setting(
        text=text,
        nets={
            "jiio": net("tasks/celeba.yaml", 50_000),  # C.5
            "jiio_100": net("tasks/celeba_100.yaml", 25_000),  # C.5
            "vae": net("experiments/runs/celeba_vae.yaml", 114_000),  # 70 epochs at batch 100, as released with the RAE
            "rae": net("experiments/runs/celeba_rae.yaml", 114_000),
            "mdeq_vae": net("experiments/runs/celeba_mdeq_vae.yaml", 50_000),
            "ae": net("experiments/runs/celeba_vae.yaml", 114_000, _AE),
            "mdeq_ae": net("experiments/runs/celeba_mdeq_vae.yaml", 50_000, _AE),
            "inverse": net("tasks/inpainting.yaml", 25_000, supervised),  # C.5
        },
        family="celeba",
        metric="fid",
        unsupervised="tasks/inverse.yaml",
        adam=("--solver.test.step.init_args.size", "0.3"),
        decoders={
            "vae": ("--model.net", "conf/model/conv_celeba64.yaml", "--data", "jiio_lightning.data.CelebA"),
            **dict.fromkeys(
                ("mdeq_vae", "jiio", "jiio_100"),
                ("--model.net", "conf/model/mdeq_celeba64.yaml", "--data", "jiio_lightning.data.CelebA"),
            ),
        },
        common=common,
        validations=validations,
        images=10_000,
        compare={
            "one": ("--samples", "1", "--batches", "200", "--repeats", "1", "--every", "4", "--sizes", "[0.3]"),
            "many": ("--samples", "16", "--batches", "4", "--repeats", "3", "--sizes", "[0.1,0.3,1.0]"),
        },
    )


SETTINGS: dict[Budget, Setting] = {
    Budget.SMOKE: Setting(
        text="8x8 digits, a few steps of everything.",
        nets={
            "jiio": Trained("tasks/digits.yaml", 4, overrides=_FEW),
            "jiio_100": Trained(
                "tasks/digits.yaml", 4, overrides=("--solver.train.max_steps", "6", "--solver.test.max_steps", "4")
            ),
            "vae": Trained("experiments/runs/digits_vae.yaml", 4),
            "rae": Trained("experiments/runs/digits_vae.yaml", 4, overrides=_RAE),
            "mdeq_vae": Trained("experiments/runs/digits_mdeq_vae.yaml", 4),
            "ae": Trained("experiments/runs/digits_vae.yaml", 4, overrides=_AE),
            "mdeq_ae": Trained("experiments/runs/digits_mdeq_vae.yaml", 4, overrides=_AE),
            "inverse": Trained("tasks/digits_inpainting.yaml", 4, overrides=_FEW),
        },
        family="digits",
        metric="frechet_digits_cnn64",
        unsupervised="tasks/inverse.yaml",
        adam=("--solver.test.max_steps", "2"),
        decoders={
            "vae": ("--model.net", "conf/model/conv_digits.yaml", *_ON_DIGITS),
            **dict.fromkeys(("mdeq_vae", "jiio", "jiio_100"), ("--model.net", "conf/model/mdeq_digits.yaml", *_ON_DIGITS)),
        },
        validations=1,
        features=Trained("experiments/runs/digits_features.yaml", 20),
        joint_steps=4,
        images=40,
        inverse_images=20,
        latents=100,
        adam_steps=2,
        compare={
            "one": ("--samples", "1", "--batches", "3", "--repeats", "1", "--sizes", "[0.3]"),
            "many": ("--samples", "16", "--repeats", "1", "--sizes", "[0.3]"),
        },
    ),
    Budget.CPU: Setting(
        text="MNIST at 28x28, 16 latent numbers, MDEQs with channels (16, 32) at 14x14 and 7x7.",
        nets={
            "jiio": Trained("tasks/mnist.yaml", 480, (6e-3,), ("--solver.train.max_steps", "40")),
            "jiio_100": Trained("tasks/mnist.yaml", 200, (6e-3,), ("--solver.train.max_steps", "100")),
            "vae": Trained("experiments/runs/mnist_vae.yaml", 1500, BASELINE_RATES),
            "rae": Trained("experiments/runs/mnist_rae.yaml", 1500, BASELINE_RATES),
            "mdeq_vae": Trained("experiments/runs/mnist_mdeq_vae.yaml", 180, BASELINE_RATES),
            "ae": Trained("experiments/runs/mnist_ae.yaml", 900, BASELINE_RATES, _FEWER),
            "mdeq_ae": Trained("experiments/runs/mnist_mdeq_ae.yaml", 100, BASELINE_RATES, _FEWER),
            "inverse": Trained("tasks/inpainting.yaml", 300, (3e-3,)),
        },
        family="mnist",
        metric="frechet_mnist_cnn64",
        inverse_images=300,
        unsupervised="tasks/inverse.yaml",
        adam=("--solver.test.step.init_args.size", "0.3"),
        decoders={"vae": ("--model.net", "conf/model/conv_mnist.yaml")},
        features=Trained("experiments/runs/mnist_features.yaml", 600, (5e-3,)),
        compare={
            "one": ("--samples", "1", "--batches", "200", "--repeats", "1", "--every", "4", "--sizes", "[0.3]"),
            "many": ("--samples", "16", "--batches", "4", "--repeats", "3", "--sizes", "[0.1,0.3,1.0]"),
        },
    ),
    Budget.GPU: _faces(
        "Faces at 64x64 that you have prepared (conf/data/faces64.yaml), the nets of Table 9 on one GPU; a hundredth of the "
        "paper's steps, a share that was chosen without a GPU to measure on.",
        ("--trainer", "conf/trainer/gpu.yaml", "--data", "conf/data/faces64.yaml"),
        scale=0.01,
        validations=10,
    ),
    Budget.PAPER: _faces(
        "CelebA at 64x64, the nets of Table 9 with 128 latent numbers on four GPUs (C.5).",
        ("--trainer", "conf/trainer/4gpu_ddp.yaml"),
        scale=1.0,
        validations=50,
    ),
}


def setting(budget: Budget) -> Setting:
    """Of a budget."""
    return SETTINGS[budget]


def training(budget: Budget, name: str) -> Run | Choice:
    """The fits of a generator: one, or one for each learning rate."""
    chosen = setting(budget)
    return fits(chosen, f"generators/{name}", chosen.nets[name])


def fits(chosen: Setting, name: str, trained: Trained) -> Run | Choice:
    """One fit, or one for each learning rate."""
    runs = tuple(_fit(f"{name}_{rate:g}", trained, rate, chosen) for rate in trained.rates)
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
