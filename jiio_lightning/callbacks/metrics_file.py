"""The logger of a run that names none."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter


class AddedRows(ExperimentWriter):
    """Adds rows to the ``metrics.csv`` that it finds; Lightning's writer deletes it."""

    def _check_log_dir_exists(self) -> None:  # what Lightning calls before the first row
        if Path(self.metrics_file_path).is_file():
            with open(self.metrics_file_path, newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class MetricsFile(CSVLogger):
    """``metrics.csv`` in a run's folder. Resumed fits and tests add their rows; a fit from scratch sets the old file aside.

    Args:
        folder: of the run.
        anew: whether an old file becomes ``metrics_1.csv``, ``metrics_2.csv`` ...
    """

    def __init__(self, folder: Path, anew: bool) -> None:
        super().__init__(folder, name="", version="")
        self.anew = anew

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made when a run first logs: a command that is refused leaves the old file where it is."""
        if self._experiment is None:
            path = Path(self.save_dir) / AddedRows.NAME_METRICS_FILE
            if self.anew and path.is_file():
                path.rename(next(old for n in count(1) if not (old := path.with_stem(f"metrics_{n}")).exists()))
            self._experiment = AddedRows(self.save_dir)
        return self._experiment
