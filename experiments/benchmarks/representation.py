"""One training step of a representation, implicit against explicit: processor seconds, and the peak memory of a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from jsonargparse.typing import PositiveInt

from jiio_lightning.commands.measurement import peak_mib
from jiio_lightning.data.signals import ImageSignal
from jiio_lightning.models import IMFN, ISIREN, MFN, InjectedSIREN
from jiio_lightning.tasks.representation import Representation
from jiio_lightning.tasks.warm_start import WarmStart

FAMILIES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Fourier-MFN": (MFN, IMFN),
    "Gabor-MFN": (
        lambda **sizes: MFN(filters="gabor", **sizes),
        lambda **sizes: IMFN(filters="gabor", **sizes),
    ),
    "SIREN inj.": (InjectedSIREN, ISIREN),
}
"""The explicit and the implicit net."""


def representation(
    size: PositiveInt = 128, width: PositiveInt = 256, steps: PositiveInt = 20, settle: PositiveInt = 100, seed: int = 0
) -> list[dict[str, Any]]:
    """Time training steps on all pixels of scikit-learn's photograph, in rounds of one step of each contender.

    The implicit nets have one layer: ``bare`` takes one evaluation of f whatever the residual, as the released code does;
    ``warm`` is the default, whose evaluations follow the residual; ``converged`` solves the adjoint too; ``cold`` begins at 0
    in each step.

    Args:
        size: pixels of the photograph's shorter side.
        width: of all nets.
        steps: that are measured; the medians count.
        settle: steps of training before those, of all but ``cold`` and ``converged``, which have 3.
        seed: of the weights.

    Returns:
        For each ``net`` and ``how``: ``ms``, processor milliseconds of a step from batch to updated weights; ``ratio`` to the
        explicit net of one layer; ``evaluations`` of f in the last step; ``peak_mib``, what a step allocates at most, and
        ``cache_mib``, what the warm start keeps.
    """
    batch = ImageSignal(size=size).batch(0)
    contenders = {(net, how): Contender(task, batch) for net in FAMILIES for how, task in _tasks(net, width, seed).items()}
    for (_, how), contender in contenders.items():
        for _ in range(3 if how in ("cold", "converged") else settle):
            contender.step()
    for _ in range(steps):
        for contender in contenders.values():
            contender.timed_step()
    return [
        {"net": net, "how": how} | contender.row(contenders[net, "explicit, 1 layer"])
        for (net, how), contender in contenders.items()
    ]


class Contender:
    """A net in training."""

    def __init__(self, task: Representation, batch: Any) -> None:
        self.task, self.batch = task, batch
        self.optimizer = task.configure_optimizers()
        self.logged: dict[str, Any] = {}
        self.seconds: list[float] = []
        task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
        task.log_dict = lambda metrics, **_: self.logged.update(metrics)  # type: ignore[method-assign]

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.task.training_step(self.batch, 0).backward()
        self.optimizer.step()

    def timed_step(self) -> None:
        began = time.process_time()
        self.step()
        self.seconds.append(time.process_time() - began)

    def row(self, explicit: Contender) -> dict[str, Any]:
        cache = self.task.cache
        return {
            "ms": 1e3 * median(self.seconds),
            "ratio": median(self.seconds) / median(explicit.seconds),
            "evaluations": self.logged.get("train/evaluations", 1.0),
            "peak_mib": peak_mib(self.step),
            "cache_mib": 0.0 if cache is None else cache.z.nbytes / 2**20,
        }


def _tasks(net: str, width: int, seed: int) -> dict[str, Representation]:
    explicit, implicit = FAMILIES[net]

    def task(make: Callable[..., Any], layers: int = 1, **options: Any) -> Representation:
        torch.manual_seed(seed)
        return Representation(make(width=width, layers=layers, scale=32.0), **options)

    return {
        "explicit, 1 layer": task(explicit),
        "explicit, 4 layers": task(explicit, layers=4),
        "bare": task(implicit, warm_start=WarmStart(tol=None)),
        "warm": task(implicit),
        "converged": task(implicit, order="converged"),
        "cold": task(implicit, warm_start=None),
    }
