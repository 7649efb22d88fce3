"""Table 1 (generation and reconstruction) and Figures 2 and 5 (samples, reconstructions)."""

from __future__ import annotations

from experiments.plan import Budget, Cell, Picture, Run, Table
from experiments.tables.fits import CAVEATS, Setting, extractor, joint_test, setting, training

PAPER = {
    "VAE": (48.12, 39.12),
    "RAE": (40.96, 36.01),
    "MDEQ-VAE": (57.15, 45.81),
    "MDEQ-VAE (w/ JIIO)": (None, 42.36),
    "JIIO-MDEQ": (46.82, 32.52),
}
NETS = {"VAE": "vae", "RAE": "rae", "MDEQ-VAE": "mdeq_vae", "MDEQ-VAE (w/ JIIO)": "mdeq_vae", "JIIO-MDEQ": "jiio"}
EVALUATIONS = {
    "VAE": "generation_prior",
    "RAE": "generation_mixture",
    "MDEQ-VAE": "generation_prior",
    "MDEQ-VAE (w/ JIIO)": "frechet",
    "JIIO-MDEQ": "generation_mixture",
}
"""Fragments of a test: a VAE is sampled from its prior, the others from a mixture fitted to their latents."""


def table1(budget: Budget) -> Table:
    """Frechet distances of samples and reconstructions."""
    chosen = setting(budget)
    tests = {row: _test(budget, chosen, row) for row in NETS}
    cells = [cell for row, run in tests.items() for cell in _cells(row, run, chosen)]
    return Table(
        name="table1",
        title="Table 1: generation and reconstruction (Sec. 4.1)",
        setting=f"{chosen.text} Distances are {_named(chosen)}; {chosen.images} test images. {_compute(chosen)}",
        caveat=CAVEATS[budget],
        cells=tuple(cells),
        better=(("generation", "low"), ("reconstruction", "low"), ("error per pixel", "low")),
        pictures=tuple(
            Picture(run, "**/images/test.png", f"{row}: test images above their reconstructions") for row, run in tests.items()
        ),
    )


def fig2(budget: Budget) -> Table:
    """Samples and reconstructions of the joint method (Figures 2 and 5)."""
    chosen = setting(budget)
    net = chosen.nets["jiio"]
    limits = ("--n", "100", "--latents", str(chosen.latents), "--batch_size", "100")
    samples = Run("fig2/samples", "sample", net.config, (*net.overrides, *limits, *chosen.common), training(budget, "jiio"))
    return Table(
        name="fig2",
        title="Figures 2 and 5: samples and reconstructions of JIIO-MDEQ",
        setting=f"{chosen.text} Samples come from a mixture of 20 normal distributions fitted to {chosen.latents} latents.",
        caveat=CAVEATS[budget],
        pictures=(
            Picture(samples, "**/samples/grid.png", "samples"),
            Picture(_test(budget, chosen, "JIIO-MDEQ"), "**/images/test.png", "test images above their reconstructions"),
        ),
    )


def fig6(budget: Budget) -> Table:
    """Reconstructions of faces at 256x256 (B.3): the paper's data only."""
    fit = Run("generators/ffhq", "fit", "tasks/ffhq.yaml", ("--trainer", "conf/trainer/4gpu_ddp.yaml"))
    test = Run("fig6/test", "test", "tasks/ffhq.yaml", ("--trainer", "conf/trainer/gpu.yaml"), fit)
    pictures = (Picture(test, "**/images/test.png", "test images above their reconstructions"),)
    return Table(
        name="fig6",
        title="Figure 6: reconstructions of FFHQ at 256x256",
        setting="FFHQ at 256x256, latent 384, 100 joint steps (B.3): `jiio data prepare ffhq --size 256` first.",
        caveat="Made by the paper budget only: there is nothing smaller that would show faces at 256x256.",
        pictures=pictures if budget is Budget.PAPER else (),
    )


def _test(budget: Budget, chosen: Setting, row: str) -> Run:
    joint = row in ("JIIO-MDEQ", "MDEQ-VAE (w/ JIIO)")
    net = chosen.nets["jiio" if joint else NETS[row]]
    fragment = f"conf/evaluation/{EVALUATIONS[row]}_{chosen.family}.yaml"
    limits = joint_test(budget) if joint else ("--data.test_limit", str(chosen.images))
    overrides = ("--config", fragment, *net.overrides, *limits, *chosen.common)
    name = "".join(c for c in row.lower().replace(" ", "_") if c.isalnum() or c == "_")
    return Run(f"table1/{name}", "test", net.config, overrides, training(budget, NETS[row]), extractor(budget))


def _cells(row: str, run: Run, chosen: Setting) -> list[Cell]:
    generation, reconstruction = PAPER[row]
    cells = [Cell(row, "generation", (run,), f"test/{chosen.metric}_generation", generation)] if generation else []
    return [
        *cells,
        Cell(row, "reconstruction", (run,), f"test/{chosen.metric}_reconstruction", reconstruction),
        Cell(row, "error per pixel", (run,), "test/error", digits=4),
        Cell(row, "PSNR, median", (run,), "test/psnr_median"),
    ]


def _named(chosen: Setting) -> str:
    if chosen.features is None:
        return "FIDs (Inception's features)"
    return f"Frechet distances over the features of a small classifier ({chosen.features.config}), not FIDs"


def _compute(chosen: Setting) -> str:
    trials = ", ".join(
        f"{name} {len(trained.rates)} x {trained.steps} steps (learning rates {', '.join(f'{rate:g}' for rate in trained.rates)})"
        for name in dict.fromkeys(NETS.values())
        for trained in [chosen.nets[name]]
    )
    return f"Training: {trials}; its seconds are below."
