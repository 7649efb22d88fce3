"""From stored bytes to batches, against arithmetic."""

import pickle

import numpy as np
import pytest
import torch

from jiio_lightning.data.dataset import ImageDataset, normalise
from jiio_lightning.data.rows import MappedRows
from jiio_lightning.data.sampler import Draw
from jiio_lightning.randomness import epoch_flips

COUNT = 40


@pytest.fixture
def rows(tmp_path) -> tuple[MappedRows, MappedRows]:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (COUNT, 3, 6, 6), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(COUNT) * 10)
    return MappedRows(tmp_path / "images.npy", 0, COUNT), MappedRows(tmp_path / "labels.npy", 0, COUNT)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("levels", [255, 16])
def test_normalised_values(levels, value_range):
    low, high = value_range
    values = normalise(torch.arange(levels + 1, dtype=torch.uint8), levels, value_range)
    assert values.dtype == torch.float32
    assert values[0] == low and values[-1] == high  # exactly
    assert (values.double() - torch.linspace(low, high, levels + 1).double()).abs().max() < 1.2e-7
    assert (values[1:] > values[:-1]).all() and values.min() >= low and values.max() <= high


def test_digits_are_eighths():
    values = torch.arange(17, dtype=torch.uint8)
    assert normalise(values, 16, (-1.0, 1.0)).equal(values / 8 - 1)


def test_a_batch_is_the_rows_that_were_drawn(rows):
    images, labels = rows
    dataset = ImageDataset(images, labels, 255, (0.0, 1.0))
    draw = Draw(3, np.array([7, 7, 39, 0]))
    batch = dataset[draw]
    assert batch.image.shape == (4, 3, 6, 6) and batch.image.dtype == torch.float32
    assert batch.image.equal(images.tensor[[7, 7, 39, 0]] / 255)
    assert batch.label.tolist() == [70, 70, 390, 0] and batch.index.tolist() == [7, 7, 39, 0]
    assert batch.label.dtype == batch.index.dtype == torch.int64
    assert len(dataset) == COUNT and dataset.first(5).equal(images.tensor[:5] / 255) and len(dataset.first()) == COUNT


def test_flips_belong_to_samples(rows):
    dataset = ImageDataset(*rows, 255, (0.0, 1.0), flip_seed=4)
    plain = dataset.first()
    for epoch in range(3):
        flips = epoch_flips(4, epoch, COUNT)
        for order in (np.arange(COUNT), np.arange(COUNT)[::-1].copy(), np.array([5, 3, 5])):
            batch = dataset[Draw(epoch, order)]
            assert sorted(batch.index.tolist()) == sorted(order) and batch.label.equal(batch.index * 10)
            for image, index in zip(batch.image, batch.index, strict=True):
                assert image.equal(plain[index].flip(-1) if flips[index] else plain[index])


def test_flips_of_all_and_of_none(rows, monkeypatch):
    plain = ImageDataset(*rows, 255, (0.0, 1.0)).first()
    for flipped in (True, False):
        monkeypatch.setattr("jiio_lightning.data.dataset.epoch_flips", lambda s, e, n, f=flipped: np.full(n, f))
        image = ImageDataset(*rows, 255, (0.0, 1.0), flip_seed=0)[Draw(0, np.arange(COUNT))].image
        assert image.equal(plain.flip(-1) if flipped else plain)


def test_padding_is_black(rows):
    dataset = ImageDataset(*rows, 255, (-1.0, 1.0), padding=2)
    image = dataset[Draw(0, np.arange(3))].image
    assert image.shape == (3, 3, 10, 10)
    assert image[..., 2:-2, 2:-2].equal(ImageDataset(*rows, 255, (-1.0, 1.0)).first(3))
    border = image.clone()
    border[..., 2:-2, 2:-2] = -1
    assert (border == -1).all()


def test_stored_bytes_are_not_written_to(rows):
    images, _ = rows
    before = images.tensor.clone()
    batch = ImageDataset(*rows, 255, (0.0, 1.0), flip_seed=0)[Draw(0, np.arange(COUNT))]
    batch.image.zero_()
    batch.label.zero_()
    assert images.tensor.equal(before) and images.tensor.dtype == torch.uint8


def test_workers_receive_no_pixels(rows):
    dataset = ImageDataset(*rows, 255, (0.0, 1.0))
    dataset[Draw(0, np.arange(3))]
    assert len(pickle.dumps(dataset)) < 2000
