"""The logger of a run that names none."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from jiio_lightning.files import whole_file

METRICS = ExperimentWriter.NAME_METRICS_FILE
"""metrics.csv"""


class AddedRows(ExperimentWriter):
    """Adds rows to the ``metrics.csv`` that it finds; Lightning's writer deletes it."""

    def _check_log_dir_exists(self) -> None:  # what Lightning calls before the first row
        self.read_columns()

    def read_columns(self) -> None:
        """Those of the file that rows are added to."""
        path = Path(self.metrics_file_path)
        self.metrics_keys = []
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def save(self) -> None:
        self.read_columns()  # a test beside a fit of the same run may have added some
        super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self.write([*self.rows()])

    def rows(self) -> list[dict[str, str]]:
        """What is in the file, without a last row that a kill has cut off."""
        text = Path(self.metrics_file_path).read_text()
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def write(self, rows: list[dict[str, str]]) -> None:
        """Write the file anew, with the columns that there are now."""
        with whole_file(Path(self.metrics_file_path)) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)


class MetricsFile(CSVLogger):
    """``metrics.csv`` in a run's folder. Resumed fits and tests add their rows.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = AddedRows(self.save_dir)
        return self._experiment

    @rank_zero_only
    def cut(self, step: int, pending: bool, earlier: Path) -> None:
        """Remove what a fit that goes on from an optimiser step will log again; the rows of tests stay.

        Args:
            step: number of steps that are done.
            pending: whether the validation after them is not.
            earlier: the folder where the run began, whose rows it takes over if it goes on in another.
        """

        def stays(row: dict[str, str]) -> bool:
            last, validation = int(row["step"]), any(row[name] for name in row if name.startswith("val/"))
            tested = any(row[name] for name in row if name.startswith("test/"))
            return tested or last < step - (pending and validation)

        path = Path(self.experiment.metrics_file_path)
        if not path.is_file() and (earlier / path.name).is_file():
            shutil.copy(earlier / path.name, path)
            self.experiment.read_columns()
        if path.is_file():
            self.experiment.write([row for row in self.experiment.rows() if stays(row)])
