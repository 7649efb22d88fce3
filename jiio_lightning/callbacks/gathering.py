"""The per-sample results of all processes, each sample once and in the order of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch.distributed
from torch import Tensor

from jiio_lightning.tasks.processes import processes

Rows = dict[str, np.ndarray]
"""One array for each name, one row a sample; ``index`` says which sample."""


def gather_rows(batches: Sequence[Mapping[str, Tensor]]) -> Rows:
    """The batches of every process as one table, sorted by ``index``, a sample that came twice counted once.

    Every process has to call it; a process without batches gives none, and all get the same table, which is empty if no process
    had a batch.
    """
    names = batches[0] if batches else ()
    own = {name: np.concatenate([batch[name].detach().cpu().numpy() for batch in batches]) for name in names}
    tables = [table for table in _from_all(own) if table]
    if not tables:
        return {}
    rows = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    _, first = np.unique(rows["index"], return_index=True)
    return {name: array[first] for name, array in rows.items()}


def _from_all(table: Rows) -> list[Rows]:
    """The tables of all processes in the order of their ranks."""
    tables: list[Rows] = [{}] * processes()
    if len(tables) == 1:
        return [table]
    torch.distributed.all_gather_object(tables, table)
    return tables
