"""Learning where solves start: training problems solved, a start regressed from them, and judged on held-out ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor
from torch.nn.utils import parametrize
from tqdm import tqdm

from jiio_lightning.commands.checkpoint import read_checkpoint, write_checkpoint
from jiio_lightning.tasks.base import LEARNED, JIIOTask


@dataclass(frozen=True)
class Learned:
    """What ``learn_start`` did. Costs are means over held-out samples, z solved at the x of the start.

    Args:
        checkpoint: the weights with the start beside them.
        samples: solved training samples.
        held_out: test samples that it is judged on.
        plain: cost where solves have started so far.
        learned: cost at the new start.
        seconds: of solving and fitting.
    """

    checkpoint: Path
    samples: int
    held_out: int
    plain: float
    learned: float
    seconds: float

    def record(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return asdict(self) | {"checkpoint": str(self.checkpoint)}


@torch.no_grad()
def learn(task: JIIOTask, batches: Iterable[Any], samples: int) -> int:
    """Fit the task's start to its solutions of the first ``samples`` problems, from plain starts; returns how many there were.

    Raises:
        ValueError: if there are too few, or they were not solved.
    """
    found: list[dict[str, Tensor]] = []
    count = 0
    with tqdm(total=samples, desc="solve", unit="sample") as bar:
        for batch in _enough(batches, samples):
            rows = _solved(task, batch, samples - count)
            found.append(rows)
            got = len(next(iter(rows.values())))
            count += got
            bar.update(got)
    assert task.learned_start is not None
    task.learned_start.fit({name: torch.cat([rows[name] for rows in found]) for name in found[0]})
    task.learned_start.to(task.device)
    return count


def _enough(batches: Iterable[Any], samples: int) -> Iterator[Any]:
    """Batches until there are so many samples."""
    for batch in batches:
        yield batch
        samples -= len(batch.index)
        if samples <= 0:
            return


def _solved(task: JIIOTask, batch: Any, most: int) -> dict[str, Tensor]:
    """The examples of the first ``most`` samples of a batch, on the host, without those that met a value that is not finite."""
    batch = move_data_to_device(type(batch)(*(part[:most] for part in batch)), task.device)
    with parametrize.cached():
        start = task.start(batch)
        solution = task.inner(task.problem(batch), start)
        rows = task.examples(batch, start, solution.v)
    task.injected.check(solution)
    return {name: tensor[solution.finite].cpu() for name, tensor in rows.items()}


@torch.no_grad()
def judge(task: JIIOTask, batches: Iterable[Any]) -> tuple[float, float]:
    """Feasible cost of the plain start and of the learned one, over batches that it has not been fitted to."""
    sums, count = [0.0, 0.0], 0
    for batch in batches:
        with parametrize.cached():
            problem = task.problem(batch)
            for place, start in enumerate((task.start(batch), task.at_learned_start(batch))):
                z, _ = task.injected.resolve(problem, start.x, start.hidden)
                sums[place] += float(problem.loss(z, start.x).sum())
        count += len(batch.index)
    return sums[0] / count, sums[1] / count


def save(task: JIIOTask, source: Path, target: Path) -> None:
    """The checkpoint ``source`` with the task's start beside its weights, whole or not at all."""
    checkpoint = read_checkpoint(source)
    weights = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not name.startswith(LEARNED)}
    start = {name: tensor.cpu() for name, tensor in task.state_dict().items() if name.startswith(LEARNED)}
    write_checkpoint(checkpoint | {"state_dict": weights | start}, target)
