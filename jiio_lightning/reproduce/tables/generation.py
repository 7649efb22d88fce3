"""Table 1 (generation and reconstruction) and Figures 2 and 5 (samples, reconstructions)."""

from __future__ import annotations

from jiio_lightning.reproduce.plan import Budget, Cell, Picture, Run, Table
from jiio_lightning.reproduce.tables.fits import CAVEATS, Setting, extractor, joint_test, setting, training

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
