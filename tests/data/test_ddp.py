"""Two gloo processes share the samples: each once, none padded, and the same after an interruption."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jiio_lightning.data import Digits
from jiio_lightning.data.sampler import TrainBatches

TRAIN, VAL, TEST, BATCH = 43, 15, 9, 4
SCRIPT = Path(__file__).with_name("ddp_run.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[list[dict]]:
    folder = tmp_path_factory.mktemp("ddp")
    Digits(root=str(folder)).prepare_data()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    usual = {**os.environ, **address, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, SCRIPT, folder, folder]  # twice at once: started by Lightning, the second imports after the first
    runs = [
        subprocess.Popen(command, env=usual | {"LOCAL_RANK": rank}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for rank in "01"
    ]
    try:
        complaints = [run.communicate(timeout=300)[1] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0, 0], complaints
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_see_what_one_sees_with_twice_the_batch(ranks):
    one = TrainBatches(range(TRAIN), 2 * BATCH, seed=0)
    expected = []
    for epoch in range(2):
        one.set_epoch(epoch)
        expected += [sorted(draw.rows.tolist()) for draw in one]
    first, second = (rank[0]["train"] for rank in ranks)
    assert len(first) == len(second) == len(expected) == 2 * (TRAIN // (2 * BATCH))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == expected
    assert {len(batch) for batch in first + second} == {BATCH}


def test_an_interrupted_run_goes_on(ranks):
    for whole, resumed, _ in ranks:
        assert resumed["train"] == whole["train"][7:]


def test_evaluation_is_not_padded(ranks):
    for split, count, run, times in (("val", VAL, 0, 2), ("test", TEST, 2, 1)):
        seen = [index for rank in ranks for batch in rank[run][split] for index in batch]
        assert sorted(seen) == sorted(list(range(count)) * times)


def test_a_logged_mean_is_the_mean_over_the_samples(ranks):
    assert {rank[0]["mean"] for rank in ranks} == {(VAL - 1) / 2}
