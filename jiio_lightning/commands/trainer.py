"""Lightning's trainer with the commands that it lacks: learn_start, compare, front, attack and sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from tqdm import tqdm

from jiio_lightning.attacks.pgd import PGD
from jiio_lightning.commands.checkpoint import claim_file, read_checkpoint
from jiio_lightning.commands.comparison import Bench, Comparison, Curve, mean_curve, paper_baseline, with_budget
from jiio_lightning.commands.front import DEFAULT, Contender, Front, race
from jiio_lightning.commands.front_report import write_front
from jiio_lightning.commands.held_out import bench_on, first, groups
from jiio_lightning.commands.provenance import provenance
from jiio_lightning.commands.report import write_json, write_report
from jiio_lightning.commands.robustness import Robustness, measure, write_robustness
from jiio_lightning.commands.sampling import DENSITY, GRID, IMAGES, Samples, claim, make_density, training_latents, write_samples
from jiio_lightning.commands.starting import Learned, judge, learn, save
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.nested import Nested
from jiio_lightning.data.module import ImageDataModule
from jiio_lightning.metrics.pca import pca_error
from jiio_lightning.tasks.adversarial import AdversarialTraining
from jiio_lightning.tasks.base import JIIOTask
from jiio_lightning.tasks.interface import LatentModel


class JIIOTrainer(Trainer):
    """A Trainer that also learns starts, compares solvers, attacks classifiers and samples generators.

    All of its options are Lightning's.
    """

    def learn_start(
        self,
        model: JIIOTask,
        datamodule: LightningDataModule,
        ckpt_path: str,
        samples: int = 1000,
        held_out: int = 64,
        out: str | None = None,
    ) -> Learned:
        """Learn where the solves of a trained net start, from training samples solved by the run file's solver.test, and write
        its checkpoint again with the start in it. A solver with ``learned_start`` (conf/solver/*_started.yaml) begins there.

        Args:
            model: the task.
            datamodule: its data.
            ckpt_path: weights.
            samples: training samples (tasks, for few-shot learning) to solve.
            held_out: test samples, at most, on which the costs with and without the start are measured.
            out: the new checkpoint; NAME_started.ckpt beside NAME.ckpt unless given.

        Raises:
            ValueError: if the task has no such start, there are too few samples, there is more than one process, --out is a
                folder, the checkpoint cannot be used, or the start costs more than what there was.
        """
        if not isinstance(model, JIIOTask) or model.learned_start is None:
            raise ValueError(f"learn_start needs a task that knows a start, the run file has {type(model).__name__}")
        if min(samples, held_out) < 1:
            raise ValueError(f"learn_start needs --samples and --held_out of at least 1, got {samples} and {held_out}")
        if samples < model.learned_start.least:
            raise ValueError(f"learn_start needs --samples of at least {model.learned_start.least} for this net, got {samples}")
        source = Path(ckpt_path)
        target = source.with_name(f"{source.stem}_started{source.suffix}") if out is None else Path(out)
        if self.world_size > 1:
            raise ValueError(f"learn_start runs in one process, this run has {self.world_size}: set trainer.devices: 1")
        claim_file(target)
        self._load(model, datamodule, ckpt_path, begins=False)
        if model.injected.learned_start:
            raise ValueError("learn_start solves from where training starts: give it a solver without learned_start")
        datamodule.setup("fit")
        began = time.perf_counter()
        solved = learn(model, datamodule.train_dataloader(), samples)
        seconds = time.perf_counter() - began
        judged = first(datamodule, held_out, model, fewer=True)
        plain, learned = judge(model, judged)
        if not learned < plain:
            raise ValueError(
                f"the learned start costs {learned:.4g} on held-out samples, {plain:.4g} is where training starts: nothing was "
                "written; raise --samples, or give the solver more steps"
            )
        save(model, source, target)
        count = sum(len(batch.index) for batch in judged)
        done = Learned(target, solved, count, plain, learned, seconds)
        folder = Path(self.default_root_dir) / "learn_start"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "learn_start.json", done.record() | {"provenance": provenance()})
        rank_zero_info(
            f"cost of {count} held-out samples where solves have started: {plain:.4g}, at the learned start: {learned:.4g}\n"
            f"checkpoint: {target}"
        )
        return done

    def compare(
        self,
        model: JIIOTask,
        datamodule: LightningDataModule,
        ckpt_path: str,
        budgets: tuple[int, ...] = (5, 10, 20, 40, 60, 80),
        baseline: Nested | None = None,
        sizes: tuple[float, ...] = (0.1, 0.3, 1.0),
        samples: int = 64,
        batches: int = 1,
        repeats: int = 3,
        every: int = 1,
        variants: dict[str, Joint] | None = None,
        tolerance: float = 0.0,
    ) -> Comparison:
        """Compare the run file's joint solver with the nested baseline on held-out samples.

        The joint solver starts where the task and ``solver.learned_start`` say, which for an attack may be a solve of z
        (``model.warm``), and is charged for it; the baseline starts from the x of training and z = 0.

        Args:
            model: the task.
            datamodule: its data.
            ckpt_path: weights.
            budgets: joint steps, each a solve of its own.
            baseline: the nested solver; unless given the paper's with cold solves of 18 and 20 steps, Adam or for attacks PGD.
            sizes: step sizes among which the baseline is tuned; the fastest one to a cost counts.
            samples: test samples in a batch.
            batches: of so many samples each; costs and seconds are averaged over them.
            repeats: of each timed joint solve; the median counts.
            every: the nested iterates are judged at each so-manieth step.
            variants: further joint solvers by the names that they get in the figure, as in Fig. 4.
            tolerance: share of the cost by which the target is easier than the lowest cost that both methods reach; for methods
                that end within a hair of one another.

        Raises:
            ValueError: if the run file's evaluation solver is not a Joint one, the tolerance is negative or the checkpoint cannot
                be used.
            SolveError: if one of the methods never reaches a finite cost.
        """
        if not budgets or not sizes:
            raise ValueError("compare needs at least one of --budgets and one of --sizes")
        if tolerance < 0:
            raise ValueError(f"compare needs a --tolerance of at least 0, got {tolerance:g}")
        self._load(model, datamodule, ckpt_path)
        solver = model.injected.budget(model)
        if not isinstance(solver, Joint):
            raise ValueError(f"compare needs solver.test to be a Joint solver, it is {type(solver).__name__}")
        baseline = _paper_baseline(model) if baseline is None else baseline
        found = groups(datamodule, samples, batches, model)
        benches = [bench_on(batch, model, repeats) for batch in found]
        _warm_up(benches[0], solver, baseline, min(budgets), sizes[0])
        joint = _mean(partial(_joint, solver, budgets), benches, "joint")
        nested = [_mean(partial(_nested, baseline, size, every), benches, f"nested, step size {size:g}") for size in sizes]
        others = [
            replace(_mean(partial(_joint, other, budgets), benches, name), setting=name)
            for name, other in (variants or {}).items()
        ]
        residuals = benches[0].residuals(with_budget(solver, max(budgets)))
        comparison = Comparison(joint, nested, residuals, samples, repeats, batches, others, tolerance)
        reference = _reference(datamodule, model, samples * batches)
        write_report(comparison, Path(self.default_root_dir) / "compare", model.outer_unit(found[0]), reference)
        return comparison

    def front(
        self,
        model: JIIOTask,
        datamodule: LightningDataModule,
        ckpt_path: str,
        solvers: dict[str, Contender],
        budgets: tuple[int, ...] = (5, 10, 20, 40, 60, 80),
        samples: int = 16,
        skip: int = 0,
        repeats: int = 5,
        tolerance: float = 0.0,
    ) -> Front:
        """Measure many solvers on one batch of held-out samples: feasible cost and KKT residual against time, evaluations of f
        and memory, and the Pareto front of cost and time.

        Args:
            model: the task.
            datamodule: its data.
            ckpt_path: weights.
            solvers: contenders by name, conf/front/NAME.yaml; the run file's own solver.test is one more, ``default``.
            budgets: of the default, each a solve of its own.
            samples: test samples in the batch.
            skip: batches of so many samples that are left out before it, such as those that solvers were chosen on.
            repeats: rounds in which all solves are timed in turn; the medians count.
            tolerance: as in compare, for the ratios of the times of the default and of the Nested families.

        Raises:
            ValueError: if there is nothing to measure, the tolerance is negative or the checkpoint cannot be used.
            SolveError: if the default never reaches a finite, feasible cost.
        """
        if not solvers or not budgets:
            raise ValueError("front needs at least one of --solvers (conf/front/) and one of --budgets")
        if DEFAULT in solvers:
            raise ValueError(f"front calls the run file's solver.test {DEFAULT}: give that one of --solvers another name")
        if min(samples, repeats) < 1 or skip < 0:
            raise ValueError(f"front needs --samples, --repeats >= 1 and --skip >= 0, got {samples}, {repeats} and {skip}")
        if tolerance < 0:
            raise ValueError(f"front needs a --tolerance of at least 0, got {tolerance:g}")
        self._load(model, datamodule, ckpt_path)
        contenders = {DEFAULT: Contender("joint", model.injected.budget(model), budgets)} | solvers
        wanting = [name for name, contender in solvers.items() if contender.begins == "learned"]
        if wanting and not (model.learned_start and model.learned_start.fitted):
            raise ValueError(
                f"{wanting[0]} starts at the learned start: run `jiio learn_start` on the checkpoint, or leave it out"
            )
        batch = groups(datamodule, samples, skip + 1, model)[-1]
        entries = race(partial(bench_on, batch, model), model.net, contenders, repeats)
        front = Front(entries, samples, repeats, tolerance)
        write_front(front, Path(self.default_root_dir) / "front", model.outer_unit(batch))
        return front

    def attack(
        self,
        model: JIIOTask,
        datamodule: LightningDataModule,
        ckpt_path: str,
        attack: str = "pgd,jiio",
        eps: float | None = None,
        n: int | None = None,
        save_set: bool = False,
    ) -> Robustness:
        """Attack a trained classifier on held-out images.

        Args:
            model: the task, AdversarialTraining.
            datamodule: its data.
            ckpt_path: weights.
            attack: one or several, separated by commas: pgd, pgd_strong, jiio (the run file's solver.test), autoattack,
                intermediate, or one of the run file's own_attacks.
            eps: radius of the ball; the run file's unless given.
            n: how many test images; all unless given.
            save_set: write the attacked images of the last attack as arrays too.

        Raises:
            ValueError: if the task is another one, the attack is not known or the checkpoint cannot be used.
        """
        if not isinstance(model, AdversarialTraining):
            raise ValueError(f"attack needs the task AdversarialTraining, the run file has {type(model).__name__}")
        if n is not None and n < 1:
            raise ValueError(f"attack needs --n of at least 1, got {n}")
        self._load(model, datamodule, ckpt_path)
        if eps is not None:
            model.threat = replace(model.threat, eps=eps)
        names = [name.strip() for name in attack.split(",")]
        robustness = measure(model, first(datamodule, n, model), names)
        write_robustness(robustness, Path(self.default_root_dir) / "attack", save_set)
        return robustness

    def sample(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str,
        n: int = 10_000,
        density: str = "gmm",
        out: str | None = None,
        latents: int = 10_000,
        batch_size: int = 250,
        seed: int = 0,
    ) -> Samples:
        """Fit a density to the latents of training images, sample it and write the images that it decodes to.

        Latents are what the run file's own test solver finds (Generation) or the encoder's means (Autoencoding).

        Args:
            model: the task.
            datamodule: its data, images in [-1, 1].
            ckpt_path: weights.
            n: images to make.
            density: gmm (a mixture of 20 normal distributions), vae_gmm (C.2: a VAE of the latents and a mixture of its own) or
                prior (N(0, I), for VAEs).
            out: folder; samples in the run's own unless given.
            latents: training images whose latents the density is fitted to, at most.
            batch_size: images at once.
            seed: of the density and its samples.

        Raises:
            ValueError: if the task has no latents, the folder holds other files or the checkpoint cannot be used.
        """
        if not isinstance(model, LatentModel):
            raise ValueError(f"sample needs a task with latents such as Generation, the run file has {type(model).__name__}")
        if not isinstance(datamodule, ImageDataModule):
            raise ValueError(f"sample needs a data module of images, the run file has {type(datamodule).__name__}")
        if min(n, latents, batch_size) < 1:
            raise ValueError(f"sample needs --n, --latents and --batch_size of at least 1, got {n}, {latents} and {batch_size}")
        chosen = make_density(density, model)
        self._load(model, datamodule, ckpt_path)
        folder = claim(Path(self.default_root_dir) / "samples" if out is None else Path(out))
        found = training_latents(model, datamodule.dataset("train"), latents, batch_size)
        chosen.fit(found, seed).save(folder / DENSITY)
        write_samples(model, chosen, folder, n, batch_size, seed)
        rank_zero_info(f"samples: {n} images in {folder / IMAGES}, the first ones in {folder / GRID}")
        return Samples(folder, n, found, chosen)

    def _load(self, model: LightningModule, datamodule: LightningDataModule, ckpt_path: str, begins: bool = True) -> None:
        """The weights and the test data; ``begins``: the solver's start is looked for at once, not in the first solve."""
        datamodule.prepare_data()
        datamodule.setup("test")
        model.load_state_dict(read_checkpoint(Path(ckpt_path))["state_dict"])
        for callback in self.callbacks:
            callback.setup(self, model, "test")
        model.to(self.strategy.root_device).eval()
        if begins and isinstance(model, JIIOTask):
            model.uses_learned_start()


def _paper_baseline(model: JIIOTask) -> Nested:
    return PGD().solver(model.threat) if isinstance(model, AdversarialTraining) else paper_baseline()


def _warm_up(bench: Bench, solver: Joint, baseline: Nested, budget: int, size: float) -> None:
    """Allocators and thread pools."""
    bench.joint(solver, [budget])
    bench.nested(with_budget(baseline, 1), size)


def _joint(solver: Joint, budgets: Sequence[int], bench: Bench) -> Curve:
    return bench.joint(solver, budgets)


def _nested(solver: Nested, size: float, every: int, bench: Bench) -> Curve:
    return bench.nested(solver, size, every)


def _mean(measure: Callable[[Bench], Curve], benches: Sequence[Bench], what: str) -> Curve:
    return mean_curve([measure(bench) for bench in tqdm(benches, desc=what, unit="batch")])


def _reference(datamodule: Any, model: Any, samples: int) -> float | None:
    """PCA with the net's latent size on the same samples, where the data are images and the net has a latent."""
    latent = getattr(getattr(model, "net", None), "latent", None)
    if latent is None or not hasattr(datamodule, "split_images"):
        return None
    return pca_error(datamodule.split_images("train", 10_000), datamodule.split_images("test", samples), latent)
