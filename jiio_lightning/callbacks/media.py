"""Pictures, curves and tables to whichever loggers take them: Weights & Biases (offline too) and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

Cell = float | int | str
SHOWN = 1000
"""Rows of a table that TensorBoard, which shows it as text, gets at most."""


def log_picture(trainer: Trainer, key: str, picture: Tensor, path: Path | None = None) -> None:
    """Show a picture ``(3, H, W)`` in [0, 1], or its file where a logger takes files; the key is like ``images/test``."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, trainer.global_step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(key=key, images=[picture.permute(1, 2, 0).cpu().numpy() if path is None else str(path)])


def log_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Show a table: as itself in Weights & Biases, as text in TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key=key, columns=list(columns), data=[list(row) for row in rows])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(key, _markdown(columns, rows[:SHOWN]), trainer.global_step)


def log_curves(trainer: Trainer, key: str, curves: Mapping[str, Sequence[float]]) -> None:
    """Show curves over the steps of a solve, one number a step, all of one length; the axis is the solve's own."""
    rows = [[step, *values] for step, values in enumerate(zip(*curves.values(), strict=True), start=1)]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key=key, columns=["step", *curves], data=rows)
        elif isinstance(logger, TensorBoardLogger):
            for step, *values in rows:
                named = zip(curves, values, strict=True)
                for name, value in named:
                    logger.experiment.add_scalar(f"{key}/{name}", value, step)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
