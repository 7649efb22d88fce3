"""``jiio learn_start``: training problems solved, a start regressed from them, and judged on held-out ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import move_data_to_device, rank_zero_info
from torch import Tensor
from tqdm import tqdm

from jiio_lightning.callbacks.finite import check_batch
from jiio_lightning.commands.checkpoint import claim_file, read_checkpoint, write_checkpoint
from jiio_lightning.commands.held_out import first, load, starts
from jiio_lightning.commands.output import write_record
from jiio_lightning.core.precision import full_precision
from jiio_lightning.core.weights import cached_weights
from jiio_lightning.tasks.base import LEARNED, JIIOTask


@dataclass(frozen=True)
class Learned:
    """What ``learn_start`` did. Costs are feasible ones at the x of the start, means over held-out samples."""

    checkpoint: str  # the weights and the start
    samples: int  # solved training samples
    held_out: int  # test samples that it is judged on
    training: float  # cost where training starts
    learned: float  # cost at the new start
    seconds: float  # of solving and fitting


def learn_start(
    trainer: Trainer,
    model: JIIOTask,
    datamodule: LightningDataModule,
    ckpt_path: str | None = None,
    samples: PositiveInt = 1000,
    held_out: PositiveInt = 64,
    out: str | None = None,
) -> Learned:
    """Learn where the solves of a trained net start, and write its checkpoint again with the start in it.

    It is learned from training samples that the run file's solver.test solves. A solver with ``learned_start``
    (conf/solver/*_started.yaml) begins there.

    Args:
        ckpt_path: weights; the run's own last ones unless given, no fresh net.
        samples: training samples (tasks, for few-shot learning) to solve; where an epoch has fewer, those.
        held_out: test samples, at most, on which the costs with and without the start are measured.
        out: the new checkpoint; NAME_started.ckpt next to NAME.ckpt unless given.

    Raises:
        ValueError: if the task has no such start, there are too few samples, there is more than one process, --out is a folder,
            the checkpoint cannot be used, or the start costs more than what there was.
    """
    if not isinstance(model, JIIOTask) or model.learned_start is None:
        raise ValueError(f"learn_start needs a task that knows a start, the run file has {type(model).__name__}")
    if samples < model.learned_start.least:
        raise ValueError(f"learn_start needs --samples of at least {model.learned_start.least} for this net, got {samples}")
    if trainer.world_size > 1:
        raise ValueError(f"learn_start runs in one process, this run has {trainer.world_size}: set trainer.devices: 1")
    if ckpt_path is None:
        raise ValueError("learn_start needs the weights of a trained net: name a --ckpt_path")
    source = Path(ckpt_path)
    target = source.with_name(f"{source.stem}_started{source.suffix}") if out is None else Path(out)
    claim_file(target)  # now, not after minutes of solving
    load(trainer, model, datamodule, ckpt_path, check_start=False)
    if model.injected.learned_start:
        raise ValueError("learn_start solves from where training starts: give it a solver without learned_start")
    judged = first(datamodule, held_out, model)
    datamodule.setup("fit")
    began = time.perf_counter()
    solved = fit(model, datamodule.train_dataloader(), samples)
    seconds = time.perf_counter() - began
    count = sum(len(batch.index) for batch in judged)
    training, learned = costs(model, judged)
    if not learned < training:  # NaN is refused too
        raise ValueError(
            f"the learned start costs {learned:.4g} on held-out samples, {training:.4g} is where training starts: nothing was "
            "written; raise --samples, or give the solver more steps"
        )
    _save(model, source, target)
    done = Learned(str(target), solved, count, training, learned, seconds)
    write_record(Path(trainer.default_root_dir) / "learn_start" / "learn_start.json", asdict(done))
    rank_zero_info(
        f"learned from {solved} training samples\n"
        f"cost of {count} held-out samples where training starts: {training:.4g}, at the learned start: {learned:.4g}\n"
        f"checkpoint: {target}"
    )
    return done


@torch.no_grad()
def fit(model: JIIOTask, batches: Iterable[Any], samples: int) -> int:
    """Fit the task's start to its solutions of the first ``samples`` problems; returns how many there were.

    Raises:
        ValueError: if there are too few, or they were not solved.
    """
    found: list[dict[str, Tensor]] = []
    left = samples
    with tqdm(total=samples, desc="solve", unit="sample") as bar:
        for batch in batches:
            check_batch(batch, "training")
            found.append(_examples(model, batch, left))
            got = len(batch.index[:left])
            left -= got
            bar.update(got)
            if left <= 0:
                break
    assert model.learned_start is not None
    examples = {name: torch.cat([rows[name] for rows in found]) for name in found[0]}
    model.learned_start.fit(examples)
    model.learned_start.to(model.device)
    return len(next(iter(examples.values())))


def _examples(model: JIIOTask, batch: Any, most: int) -> dict[str, Tensor]:
    """What the first ``most`` samples of a batch teach, on the host, without those that met a value that is not finite."""
    batch = move_data_to_device(type(batch)(*(part[:most] for part in batch)), model.device)
    with cached_weights(model):
        start = model.start(batch)
        solution = model.inner(model.problem(batch), start)
        rows = model.examples(batch, start, solution.v)
    model.injected.check(solution)
    return {name: tensor[solution.finite].cpu() for name, tensor in rows.items()}


@torch.no_grad()
def costs(model: JIIOTask, batches: Iterable[Any]) -> tuple[float, float]:
    """Mean feasible cost where training starts and at the learned start, over batches that it has not been fitted to."""
    rows: list[Tensor] = []
    for batch in tqdm(batches, desc="judge", unit="batch"):
        with cached_weights(model), full_precision(model.device.type):
            problem, places = model.problem(batch), starts(model, batch)
            for v in (places["training"](), places["learned"]()):
                z, _ = model.injected.resolve(problem, v.x, v.hidden)
                rows.append(problem.loss(z, v.x))
    return float(torch.cat(rows[::2]).mean()), float(torch.cat(rows[1::2]).mean())


def _save(model: JIIOTask, source: Path, target: Path) -> None:
    """The checkpoint ``source`` with the task's start, whole or not at all."""
    checkpoint = read_checkpoint(source)
    # nothing stays of an earlier start
    weights = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not name.startswith(LEARNED)}
    start = {name: tensor.cpu() for name, tensor in model.state_dict().items() if name.startswith(LEARNED)}
    write_checkpoint(checkpoint | {"state_dict": weights | start}, target)
