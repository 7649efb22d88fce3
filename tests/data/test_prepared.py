"""Splits as ranges of mapped rows."""

import pickle

import numpy as np
import pytest

from jiio_lightning.data import DataError
from jiio_lightning.data.prepared import Manifest, MappedRows


@pytest.fixture
def rows(tmp_path) -> MappedRows:
    np.save(tmp_path / "x.npy", np.arange(100_000, dtype=np.int64))
    return MappedRows(tmp_path / "x.npy", 10, 90_010)


def test_rows_are_those_of_the_range(rows):
    assert len(rows) == len(rows.tensor) == 90_000
    assert rows.tensor[[0, -1]].tolist() == [10, 90_009]
    part = rows[5:20]
    assert len(part) == 15 and part.tensor.tolist() == list(range(15, 30))
    assert rows[:None].tensor.equal(rows.tensor)


def test_rows_are_mapped_and_the_file_is_safe(rows):
    before = rows.path.read_bytes()
    rows.tensor[0] = -1
    assert rows.path.read_bytes() == before


def test_rows_pickle_as_an_address(rows):
    assert rows.tensor[0] == 10
    message = pickle.dumps(rows)
    assert len(message) < 1000
    assert pickle.loads(message).tensor.equal(rows.tensor)


def test_bounds_of_splits():
    manifest = Manifest("x", {}, True, {}, (1, 2, 2), 255, {"train": 5, "val": 2, "test": 3}, {}, {}, {})
    assert [manifest.bounds(split) for split in ("train", "val", "test")] == [(0, 5), (5, 7), (7, 10)]
    with pytest.raises(DataError, match="no split 'tset'; it has train, val, test"):
        manifest.bounds("tset")
