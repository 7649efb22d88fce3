"""Lightning's trainer with the command that it lacks: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import move_data_to_device
from tqdm import tqdm

from jiio_lightning.checkpoint import read_checkpoint
from jiio_lightning.comparison import Bench, Comparison, paper_baseline, with_budget
from jiio_lightning.core.joint import Joint
from jiio_lightning.core.nested import Nested
from jiio_lightning.metrics.pca import pca_error
from jiio_lightning.report import write_report
from jiio_lightning.tasks.base import JIIOTask


class JIIOTrainer(Trainer):
    """A Trainer that can also compare solvers. All of its options are Lightning's."""

    def compare(
        self,
        model: JIIOTask,
        datamodule: LightningDataModule,
        ckpt_path: str,
        budgets: tuple[int, ...] = (5, 10, 20, 40, 60, 80),
        baseline: Nested | None = None,
        sizes: tuple[float, ...] = (0.1, 0.3, 1.0),
        samples: int = 64,
        repeats: int = 3,
    ) -> Comparison:
        """Compare the run file's joint solver with the nested baseline on held-out samples.

        Args:
            model: the task.
            datamodule: its data.
            ckpt_path: weights.
            budgets: joint steps, each a solve of its own.
            baseline: the nested solver; the paper's Adam with cold solves of 18 and 20 steps unless given.
            sizes: step sizes among which the baseline is tuned; the fastest one to a cost counts.
            samples: test samples in the batch.
            repeats: of each timed joint solve; the median counts.

        Raises:
            ValueError: if the run file's evaluation solver is not a Joint one, or the checkpoint cannot be used.
            SolveError: if one of the methods never reaches a finite cost.
        """
        if not budgets or not sizes:
            raise ValueError("compare needs at least one of --budgets and one of --sizes")
        self._load(model, datamodule, ckpt_path)
        solver = model.injected.budget(model)
        if not isinstance(solver, Joint):
            raise ValueError(f"compare needs solver.test to be a Joint solver, it is {type(solver).__name__}")
        batch = self._batch(datamodule, samples)
        bench = Bench(model.problem(batch), model.start(batch), model.injected.resolve, repeats)
        baseline = paper_baseline() if baseline is None else baseline
        bench.joint(solver, [min(budgets)])  # warm up: allocators and thread pools
        bench.nested(with_budget(baseline, 1), sizes[0])
        joint = bench.joint(solver, budgets)
        nested = [bench.nested(baseline, size) for size in tqdm(sizes, desc="nested baseline, step sizes")]
        residuals = bench.residuals(with_budget(solver, max(budgets)))
        comparison = Comparison(joint, nested, residuals, len(batch.index), repeats)
        reference = _reference(datamodule, model, samples)
        pixels = batch.image[0].numel() if hasattr(batch, "image") else 1
        write_report(comparison, Path(self.default_root_dir) / "compare", pixels, reference)
        return comparison

    def _load(self, model: JIIOTask, datamodule: LightningDataModule, ckpt_path: str) -> None:
        datamodule.prepare_data()
        datamodule.setup("test")
        model.load_state_dict(read_checkpoint(Path(ckpt_path))["state_dict"])
        for callback in self.callbacks:
            callback.setup(self, model, "test")
        model.to(self.strategy.root_device).eval()

    def _batch(self, datamodule: LightningDataModule, samples: int) -> Any:
        batch = next(iter(datamodule.test_dataloader()))
        if len(batch.index) < samples:
            raise ValueError(f"a test batch has {len(batch.index)} samples: set data.eval_batch_size to at least {samples}")
        return move_data_to_device(type(batch)(*(part[:samples] for part in batch)), self.strategy.root_device)


def _reference(datamodule: Any, model: Any, samples: int) -> float | None:
    """PCA with the net's latent size on the same samples, where the data are images and the net has a latent."""
    latent = getattr(getattr(model, "net", None), "latent", None)
    if latent is None or not hasattr(datamodule, "split_images"):
        return None
    return pca_error(datamodule.split_images("train", 10_000), datamodule.split_images("test", samples), latent)
