"""``jiio compare``: the run file's solver against others on held-out samples, in feasible cost and wall-clock time."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from pytorch_lightning import LightningDataModule, Trainer
from tqdm import tqdm

from jiio_lightning.commands.compare_report import write_report
from jiio_lightning.commands.comparison import Comparison, Curve
from jiio_lightning.commands.contenders import BASELINES, DEFAULT, Contender, describe, paper_baseline
from jiio_lightning.commands.held_out import groups, load
from jiio_lightning.commands.measurement import Trial, mean, measure
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.metrics.pca import pca_error
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.interface import LatentModel


def compare(
    trainer: Trainer,
    model: JIIOTask,
    datamodule: LightningDataModule,
    ckpt_path: str | None = None,
    solvers: dict[str, Contender] | None = None,
    budgets: tuple[PositiveInt, ...] = (5, 10, 20, 40, 60, 80),
    samples: PositiveInt = 64,
    batches: PositiveInt = 1,
    skip: NonNegativeInt = 0,
    repeats: PositiveInt = 3,
    tolerance: NonNegativeFloat = 0.0,
) -> Comparison:
    """Compare the run file's solver with others on held-out samples.

    What is measured: feasible cost and KKT residual against time, evaluations of f and memory, the Pareto front of cost and time,
    and how much sooner the run file's solver is at the lowest cost that both sides reach.

    Args:
        ckpt_path: weights; the run's own last ones unless given, or none for a fresh net.
        solvers: contenders by name, conf/compare/NAME.yaml; the run file's own solver.test is one more, ``default``. Unless given
            the paper's Nested: Adam with steps of 0.1, 0.3 and 1, or for attacks PGD with steps of 0.2, 0.4 and 1 eps.
        budgets: steps of the default, each a solve of its own.
        samples: test samples in a batch.
        batches: of so many samples each; costs and seconds are averaged over them.
        skip: batches that are left out before them, such as those that solvers were chosen on.
        repeats: rounds in which all solves are timed in turn, the medians count; a Nested one of over 5 seconds is timed once.
        tolerance: share of the cost by which the target is easier than the lowest cost that both sides reach; for methods that
            end within a hair of one another.

    Raises:
        ValueError: if a contender has a name that is taken or a start that the checkpoint has not, there are too few samples, or
            the checkpoint cannot be used.
        SolveError: if one side never reaches a finite, feasible cost.
    """
    if not isinstance(model, JIIOTask):
        raise ValueError(f"compare measures inner solvers, and {type(model).__name__} has no inner problem")
    # what a comparison says is stored under the names of families and of contenders alike
    taken = sorted({DEFAULT, *BASELINES} & set(solvers or {}))
    if taken:
        raise ValueError(f"compare has a meaning of its own for {taken[0]}: give that one of --solvers another name")
    load(trainer, model, datamodule, ckpt_path)
    default = Contender("joint", model.injected.budget(model), budgets)
    contenders = {DEFAULT: default} | (paper_baseline(model) if solvers is None else solvers)
    found = groups(datamodule, samples, skip + batches, model)[skip:]
    with torch.no_grad(), cached_weights(model):
        # a missing start is an error before the measurement, which takes minutes
        trial = Trial(model, found[0], {})
        wanting = [name for name, one in contenders.items() if trial.start(one) not in trial.starts]
        if wanting:
            raise ValueError(
                f"{wanting[0]} begins at the learned start: run `jiio learn_start` on the checkpoint, or leave it out"
            )
        measured = [measure(model, batch, contenders, repeats) for batch in found]
        # solves of their own: the profiler that counts memory would be in the times
        peaks = {name: trial.peak_mib(one) for name, one in tqdm(contenders.items(), desc="memory", unit="contender")}
        residuals = trial.residuals(default)
    curves = []
    for name, one in contenders.items():
        points = map(mean, zip(*(points[name] for points in measured), strict=True))
        at = dict(zip(one.budgets, points, strict=True))
        curves.append(Curve(name, one.family, trial.start(one), describe(one.solver), at, peaks[name]))
    reference = None
    if isinstance(model, LatentModel) and hasattr(datamodule, "split_images"):
        images = torch.cat([batch.image for batch in found])
        reference = pca_error(datamodule.split_images("train", 10_000), images, model.net.latent)
    unit = model.outer_unit(found[0])
    comparison = Comparison(curves, residuals, samples, batches, repeats, tolerance, unit, reference)
    write_report(comparison, Path(trainer.default_root_dir) / "compare")
    return comparison
