"""Table 4 (inverse problems) and Figures 7 to 12 (their pictures)."""

from __future__ import annotations

from experiments.plan import Budget, Cell, Choice, Picture, Run, Table
from experiments.tables.fits import CAVEATS, Overrides, Setting, Trained, fits, joint_test, setting, training

OPERATORS: dict[str, Overrides] = {
    "inpainting": ("--model.operator", "jiio_lightning.core.operators.SquareMask"),
    "denoising 0.2": ("--model.operator", "jiio_lightning.core.operators.GaussianNoise", "--model.operator.init_args.std", "0.2"),
    "denoising 0.4": ("--model.operator", "jiio_lightning.core.operators.GaussianNoise", "--model.operator.init_args.std", "0.4"),
}
PAPER = {
    "supervised AE": (17.9, 18.72, 18.32),
    "supervised MDEQ-AE": (17.06, 18.58, 18.49),
    "supervised JIIO-MDEQ": (16.90, 18.22, 17.89),
    "VAE (Adam)": (15.34, 15.31, 15.24),
    "MDEQ-VAE (Adam)": (16.62, 16.96, 16.87),
    "JIIO-MDEQ-40": (15.88, 17.08, 16.03),
    "JIIO-MDEQ-100": (15.87, 17.86, 17.55),
}
"""Median PSNR in dB as printed: with a peak of 1 for images that span [-1, 1]."""
PEAK = 6.02
"""dB by which the usual convention, a range of 2, lies above it."""
SUPERVISED = {"supervised AE": "ae", "supervised MDEQ-AE": "mdeq_ae", "supervised JIIO-MDEQ": "inverse"}
UNSUPERVISED = {"VAE (Adam)": "vae", "MDEQ-VAE (Adam)": "mdeq_vae", "JIIO-MDEQ-40": "jiio", "JIIO-MDEQ-100": "jiio_100"}


def table4(budget: Budget) -> Table:
    """Median PSNR of recovered images."""
    chosen = setting(budget)
    tests = _tests(budget)
    cells = [
        Cell(row, problem, (run,), "test/psnr_median", round(_paper(row, problem) + PEAK, 2))
        for (row, problem), run in tests.items()
    ]
    return Table(
        name="table4",
        title="Table 4: median PSNR of inverse problems (Sec. 4.2)",
        setting=(
            f"{chosen.text} {chosen.inverse_images} test images, PSNR for a range of 2. Supervised JIIO: the adjoint at "
            f"fixed x*, as in the paper (results/inverse_gradients.md has the full KKT one). {_training(chosen)}"
        ),
        caveat=(
            f"{CAVEATS[budget]} The paper's PSNR takes a peak of 1 for images that span [-1, 1]: its printed values are raised "
            f"by {PEAK} dB here. Its medians are over batches, ours over images."
        ),
        cells=tuple(cells),
        better=tuple((problem, "high") for problem in OPERATORS),
        pictures=_pictures(tests),
    )


def figs7to12(budget: Budget) -> Table:
    """Corrupted, recovered and original images of the joint method, supervised and not."""
    chosen = setting(budget)
    tests = {place: run for place, run in _tests(budget).items() if place[0] in ("supervised JIIO-MDEQ", "JIIO-MDEQ-40")}
    return Table(
        name="figs7to12",
        title="Figures 7 to 12: inverse problems, supervised and unsupervised",
        setting=f"{chosen.text} From above: corrupted, recovered, original.",
        caveat=CAVEATS[budget],
        pictures=_pictures(tests),
    )


def _tests(budget: Budget) -> dict[tuple[str, str], Run]:
    places = {(row, problem): _supervised(budget, row, problem) for row in SUPERVISED for problem in OPERATORS}
    return places | {(row, problem): _unsupervised(budget, row, problem) for row in UNSUPERVISED for problem in OPERATORS}


def _supervised(budget: Budget, row: str, problem: str) -> Run:
    """A net trained for one problem."""
    chosen = setting(budget)
    trained = _net(chosen, row, problem)
    name = f"{_slug(row)}_{_slug(problem)}"
    weights = fits(chosen, f"inverse/{name}", trained)
    overrides = (*_figures(row), *trained.overrides, "--data.test_limit", str(chosen.inverse_images), *chosen.common)
    return Run(f"table4/{name}", "test", trained.config, overrides, weights)


def _net(chosen: Setting, row: str, problem: str) -> Trained:
    net = chosen.nets[SUPERVISED[row]]
    return Trained(net.config, net.steps, net.rates, (*net.overrides, *OPERATORS[problem]))


def _unsupervised(budget: Budget, row: str, problem: str) -> Run:
    """A generator that was trained on images, re-used (Eq. 22)."""
    chosen = setting(budget)
    net = UNSUPERVISED[row]
    nested = f"conf/solver/nested{'_explicit' if net == 'vae' else ''}.yaml"
    joint = ("--solver", "conf/solver/joint_40_100.yaml", *joint_test(budget)[:2])
    solver = ("--solver", nested, *chosen.adam) if "Adam" in row else joint
    decoder = chosen.decoders.get(net, ())
    limit = ("--data.test_limit", str(chosen.inverse_images))
    overrides = (*decoder, *OPERATORS[problem], *solver, *limit, *chosen.common)
    return Run(f"table4/{_slug(row)}_{_slug(problem)}", "test", chosen.unsupervised, overrides, _weights(budget, net))


def _weights(budget: Budget, net: str) -> Run | Choice:
    return training(budget, net)


def _figures(row: str) -> Overrides:
    """Medians of an autoencoder's test; the run files of inverse problems have them."""
    return ("--config", "conf/evaluation/sample_metrics.yaml") if row in ("supervised AE", "supervised MDEQ-AE") else ()


def _paper(row: str, problem: str) -> float:
    return PAPER[row][list(OPERATORS).index(problem)]


def _pictures(tests: dict[tuple[str, str], Run]) -> tuple[Picture, ...]:
    return tuple(
        Picture(run, "**/images/test.png", f"{row}, {problem}: corrupted, recovered, original")
        for (row, problem), run in tests.items()
    )


def _training(chosen: Setting) -> str:
    names = ("ae", "mdeq_ae", "inverse", "vae", "mdeq_vae", "jiio", "jiio_100")
    return (
        "Training: "
        + ", ".join(f"{name} {len(net.rates)} x {net.steps} steps" for name in names for net in [chosen.nets[name]])
        + "."
    )


def _slug(text: str) -> str:
    return "".join(c for c in text.lower().replace(" ", "_") if c.isalnum() or c in "_-.")
