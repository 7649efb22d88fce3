"""The logger of a run that names none."""

from __future__ import annotations

import csv
import shutil
from itertools import count
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from jiio_lightning.files import whole_file


def set_aside(path: Path) -> None:
    """Give the file of an earlier run another name: ``metrics_1.csv``, ``metrics_2.csv`` ..."""
    path.rename(next(old for n in count(1) if not (old := path.with_stem(f"{path.stem}_{n}")).exists()))


class AddedRows(ExperimentWriter):
    """Adds rows to the ``metrics.csv`` that it finds; Lightning's writer deletes it."""

    def __init__(self, folder: str, anew: bool) -> None:
        self.anew = anew
        super().__init__(folder)

    def _check_log_dir_exists(self) -> None:  # what Lightning calls before the first row
        self.read_columns()

    def read_columns(self) -> None:
        """Those of the file that rows are added to."""
        path = Path(self.metrics_file_path)
        if path.is_file() and not self.anew:
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def save(self) -> None:
        path = Path(self.metrics_file_path)
        if self.metrics and self.anew:  # now: a run that fails before its first row leaves the old file where it is
            self.anew = False
            if path.is_file():
                set_aside(path)
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


METRICS = ExperimentWriter.NAME_METRICS_FILE
"""metrics.csv"""


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
        if self._experiment is None:
            self._experiment = AddedRows(self.save_dir, self.anew)
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
