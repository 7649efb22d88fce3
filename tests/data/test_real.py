"""The real data: full passes. ``JIIO_SHARED_DATA=... pytest -m slow``."""

import tarfile
import time
from pathlib import Path

import pytest
import torch

from jiio_lightning.data import CIFAR10, MNIST, ImageFolder, Omniglot
from jiio_lightning.data.module import PreparedDataModule

pytestmark = pytest.mark.slow


def full_pass(data: PreparedDataModule, train: int, rest: int) -> float:
    """Prepare, see every sample once, and return the seconds of the pass over the training split."""
    data.prepare_data()
    data.setup("fit")
    data.prepared.verify()
    start = time.perf_counter()
    seen = torch.cat([batch.index for batch in data.train_dataloader()])
    seconds = time.perf_counter() - start
    assert len(set(seen.tolist())) == len(seen) > train - data.batch_size
    loaders = data.val_dataloader(), data.test_dataloader()
    assert sum(len(batch.index) for loader in loaders for batch in loader) == rest
    return seconds


@pytest.mark.parametrize("on_device", [False, True])
def test_mnist(shared_data, tmp_path, on_device):
    data = MNIST(root=str(tmp_path), source=str(shared_data / "mnist"), on_device=on_device)
    full_pass(data, 55_000, 15_000)
    assert abs(data.split_images("test").mean() - (2 * 0.1325 - 1)) < 1e-3  # 0.1325 of full white


def test_cifar10(shared_data, tmp_path):
    full_pass(CIFAR10(root=str(tmp_path), source=str(shared_data / "cifar10")), 45_000, 15_000)


def test_omniglot(shared_data, tmp_path):
    data = Omniglot(root=str(tmp_path), source=str(shared_data / "omniglot"))
    full_pass(data, data.train_episodes, data.val_episodes + data.test_episodes)


def faces(root: Path, source: Path) -> ImageFolder:
    return ImageFolder(
        root=str(root), source=str(source), name="faces64", train=19_000, val=1_000, shuffle=False, batch_size=48, flip=True
    )


def test_faces_from_their_tar_and_from_its_folder(shared_data, tmp_path):
    archive = shared_data / "faces64" / "faces64.tar.xz"
    data = faces(tmp_path / "a", archive)
    full_pass(data, 19_000, 2_317)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "expanded", filter="data")
    other = faces(tmp_path / "b", tmp_path / "expanded")
    other.prepare_data()
    assert data.prepared.manifest.checksums == other.prepared.manifest.checksums
