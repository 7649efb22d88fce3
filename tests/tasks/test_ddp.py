"""Several processes that share a batch are one process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from jiio_lightning.starts import ClassPerturbation
from jiio_lightning.tasks.base import LEARNED
from tests.conftest import REPO, TINY, call, metrics

STEPS = ("--trainer.max_steps", "3", "--trainer.precision", "64-true", "--trainer.num_sanity_val_steps", "0")
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1, "val_check_interval": 3}
SUPERVISED = {"class_path": "jiio_lightning.core.FixedInput", "init_args": {"solver": {"method": "Picard", "max_steps": 20}}}
MASK = {"class_path": "jiio_lightning.core.operators.SquareMask"}
SMALL_NET = {"class_path": "jiio_lightning.models.IMFN", "init_args": {"width": 16, "filters": "gabor", "scale": 16}}
TASKS = {
    "generation": ("tiny.yaml", {"data": {"val_limit": 10}}),
    "inverse": ("tiny.yaml", {"model": {"class_path": "Inverse", "init_args": {"operator": MASK, "outer": SUPERVISED}}}),
    "adversarial": (
        f"{REPO}/tasks/digits_adversarial.yaml",
        {
            "model": {"init_args": {"random_start": True}},
            "data": {"init_args": {"train_limit": 32, "val_limit": 10, "test_limit": 10}},
            "solver": {"train": {"init_args": {"max_steps": 12}}, "test": {"init_args": {"max_steps": 12}}},
        },
    ),
    "meta": (f"{REPO}/tasks/digits_meta.yaml", {"data": {"init_args": {"val_episodes": 5}}, "solver": {"trust_tol": 10.0}}),
    "representation": (
        f"{REPO}/tasks/image.yaml",
        {"model": {"init_args": {"net": SMALL_NET, "warm_start": None}}, "data": {"init_args": {"size": 16, "batch_size": 10}}},
    ),
}
"""A run file of each task, and what makes it small."""


@contextlib.contextmanager
def running(*commands: Sequence[str | Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run them beside the block and wait for them; the processes that they have started end with them whatever happens."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, sys.path)])}
    with contextlib.ExitStack() as ends:
        started = []
        for command in commands:
            options = {"env": environment, "start_new_session": True, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
            started.append(ends.enter_context(subprocess.Popen(list(map(str, command)), **options)))
            ends.callback(_end, started[-1])
        yield started
        complaints = [process.communicate(timeout=600)[1].decode() for process in started]
        assert not any(process.returncode for process in started), "\n".join(complaints)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command: list[str]) -> None:
    """Run it to its end."""
    with running(command):
        pass


def two_nodes(*words: str | Path) -> list[list[str | Path]]:
    """The commands of two nodes with two processes each, as in the README, on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "2", "--master_port", port]
    return [[*launcher, "--master_addr", "localhost", "--node_rank", rank, *words] for rank in "01"]


FOUR = ("--trainer.num_nodes", "2", "--trainer.devices", "2", "--trainer.strategy", "ddp")


def weights(name: str) -> dict[str, torch.Tensor]:
    """Of the last checkpoint of a run."""
    return torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a tensor, over its norm."""
    assert all(tensor.dtype == torch.float64 for tensor in one.values())
    return max(float((tensor - other[name]).norm() / tensor.norm().clamp_min(1e-6)) for name, tensor in one.items())


def test_two_processes_give_the_weights_of_one(jiio):
    """After 3 steps with the Jacobian penalty, gradient clipping and the schedule of the learning rate."""
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--name", "two")
    with running([sys.executable, "-m", "jiio_lightning", "fit", "--config", "tiny.yaml", *STEPS, *two]):
        assert jiio("fit", "--config", "tiny.yaml", *STEPS, "--data.batch_size", 4, "--name", "one") == 0
    assert gap(weights("one"), weights("two")) < 1e-9
    one, two = (next(row["val/error"] for row in metrics(Path(f"runs/{name}")) if row["val/error"]) for name in ("one", "two"))
    assert float(two) == pytest.approx(float(one), rel=1e-6), "the mean of both processes' images, not of the first one's"


def test_accumulated_gradients_give_the_weights_of_a_larger_batch(jiio):
    """Beyond an epoch, of 28 samples: three batches of 8, or seven of 4, of which one is left out."""
    usual = (
        "--config",
        "tiny.yaml",
        *STEPS,
        "--trainer.max_steps",
        4,
        "--trainer.val_check_interval",
        3,
        "--data.train_limit",
        28,
    )
    assert jiio("fit", *usual, "--data.batch_size", 8, "--name", "large") == 0
    assert jiio("fit", *usual, "--data.batch_size", 4, "--trainer.accumulate_grad_batches", 2, "--name", "small") == 0
    assert gap(weights("large"), weights("small")) < 1e-9


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_within_a_minute(jiio):
    """With one line on why, and one on how to go on."""
    endless = ("--trainer.max_steps", "100000", "--trainer.val_check_interval", "1", "--trainer.limit_val_batches", "1")
    command = ["fit", "--config", "tiny.yaml", *endless, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with pytest.raises(AssertionError) as end, running([sys.executable, "-m", "jiio_lightning", *command]) as (first,):
        while not Path("runs/tiny/checkpoints/last.ckpt").exists() and first.poll() is None:
            time.sleep(0.1)
        began = time.monotonic()
        os.kill(int(Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]), signal.SIGKILL)
    assert time.monotonic() - began < 60
    said = str(end.value)
    assert said.count("error: ") == said.count("error: another process of this run has ended") == 1, said
    assert said.count("go on with: jiio fit") == 1 and "Traceback" not in said, said


@pytest.fixture(scope="module")
def both(tmp_path_factory, prepared) -> Iterator[None]:
    """Each task fitted for three steps, tested and asked by one process (``runs/one_NAME``) and by four, on two nodes."""
    folder = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JIIO_DATA", str(prepared))
        Path("tiny.yaml").write_text(TINY)
        for name, (_, less) in TASKS.items():
            trainer = QUIET | less.get("trainer", {})
            Path(f"{name}.yaml").write_text(yaml.safe_dump({"trainer": trainer} | less))
        for command in commands("one", "8"):
            assert call(*command) == 0
        with_start = torch.load("runs/one_adversarial/checkpoints/last.ckpt", weights_only=True)
        start = ClassPerturbation()
        start.fit({"x": torch.randn(20, 64, dtype=torch.float64), "label": torch.arange(20) % 10})
        with_start["state_dict"] |= {f"{LEARNED}{name}": tensor for name, tensor in start.state_dict().items()}
        torch.save(with_start, "started.ckpt")
        for command in evaluations("one"):
            assert call(*command) == 0
        shared = [[*command, *FOUR] for command in (*commands("four", "2"), *evaluations("four"))]
        Path("commands.json").write_text(json.dumps(shared))
        with running(*two_nodes(Path(__file__).with_name("ddp_run.py"), "commands.json")):
            pass
        yield


def commands(kind: str, batch: str) -> list[list[str]]:
    """The fit of each task."""
    made = []
    for name, (config, _) in TASKS.items():
        size = () if name == "representation" else ("--data.batch_size", batch)  # its batch is that of all processes
        made.append(["fit", "--config", config, "--config", f"{name}.yaml", *STEPS, *size, "--name", f"{kind}_{name}"])
    return made


def evaluations(kind: str) -> list[list[str]]:
    """Ten images: attacked from a learned start, and reconstructed."""
    usual = ("--trainer.precision", "64-true", "--trainer.enable_progress_bar", "false")
    attack = ["--config", TASKS["adversarial"][0], "--config", "adversarial.yaml", "--ckpt_path", "started.ckpt"]
    generator = ["--config", "tiny.yaml", "--ckpt_path", "runs/one_generation/checkpoints/last.ckpt", "--data.test_limit", "10"]
    return [
        ["test", *attack, "--solver.learned_start", "true", *usual, "--name", f"{kind}_attacked"],
        ["predict", *generator, *usual, "--data.eval_batch_size", "2", "--name", f"{kind}_predicted"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_four_processes_on_two_nodes_give_the_weights_of_one(both, name):
    """Their batches are of 1, 1, 2 and 4 samples, of a representation 3, 3, 2 and 2; validation has 10, of meta-learning 5."""
    assert gap(weights(f"one_{name}"), weights(f"four_{name}")) < 1e-9
    one, four = (
        {key: value for row in metrics(Path(f"runs/{kind}_{name}")) for key, value in row.items() if key[:4] == "val/" and value}
        for kind in ("one", "four")
    )
    trusted = [float(row["train/trusted"]) for row in metrics(Path(f"runs/one_{name}")) if row.get("train/trusted")]
    assert name == "representation" or min(trusted) > 0, trusted
    exact = [key for key in one if key.rpartition("/")[2].startswith(("error", "loss", "accuracy", "cost"))]
    assert exact and {key: float(four[key]) for key in exact} == pytest.approx({key: float(one[key]) for key in exact}, rel=1e-6)


@pytest.mark.slow
def test_four_processes_attack_from_a_learned_start_what_one_does(both):
    one, four = (np.genfromtxt(f"runs/{kind}_attacked/samples_test.csv", delimiter=",", names=True) for kind in ("one", "four"))
    assert four["index"].tolist() == list(range(10)) and one.dtype.names == four.dtype.names
    for name in one.dtype.names:
        assert four[name] == pytest.approx(one[name], rel=1e-5, abs=1e-9), name
    last = [metrics(Path(f"runs/{kind}_attacked"))[-1]["test/accuracy_pgd"] for kind in ("one", "four")]
    assert last[0] == last[1]


@pytest.mark.slow
def test_the_predictions_of_four_processes_come_together(both):
    one, four = (np.load(f"runs/{kind}_predicted/predictions/predictions.npz") for kind in ("one", "four"))
    assert four["index"].tolist() == list(range(10)) and set(one.files) == set(four.files)
    for name in one.files:
        assert np.allclose(one[name], four[name], rtol=1e-9, atol=1e-9), name
