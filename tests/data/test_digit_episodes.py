"""Episodes of 8x8 digits: which digits, how many drawings, and that they are the digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jiio_lightning.data import DataError, DigitEpisodes


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prepared")
    DigitEpisodes(root=str(folder)).prepare_data()
    return str(folder)


def known() -> dict[bytes, int]:
    """Which digit a drawing is."""
    digits = load_digits()
    return {image.astype(np.uint8).tobytes(): int(label) for image, label in zip(digits.images, digits.target, strict=True)}


@pytest.mark.parametrize(("split", "digits"), [("train", range(5)), ("val", range(5)), ("test", range(5, 10))])
def test_the_digits_of_a_split(root, split, digits):
    """As many drawings of each, none twice; the least frequent digit has them all."""
    data, digit = DigitEpisodes(root=root), known()
    places = data.places(split)
    images = data.characters(split).tensor[places.ravel()].numpy()
    assert places.shape == (5, 174) and len(np.unique(places)) == places.size
    assert [digit[image.tobytes()] for image in images] == [d for d in digits for _ in range(174)]
    assert min(np.bincount(load_digits().target)) == 174


def test_an_episode_is_of_distinct_digits_upright(root):
    data, digit = DigitEpisodes(root=root, batch_size=3, shots=2, queries=4, train_ways=3, seed=1), known()
    batch = next(iter(data.train_dataloader()))
    assert batch.support.shape == (3, 6, 1, 8, 8) and batch.query.shape == (3, 12, 1, 8, 8) and data.num_classes == 5
    assert batch.support.min() == 0 and batch.support.max() == 1
    for support, query in zip(batch.support, batch.query, strict=True):
        seen = [digit[(image * 16).to(torch.uint8).numpy().tobytes()] for image in torch.cat([support, query])]
        classes = seen[:6:2]
        assert len(set(classes)) == 3 and max(classes) < 5
        assert seen == [c for c in classes for _ in range(2)] + [c for c in classes for _ in range(4)]


def test_on_device_gives_the_same_episodes(root):
    one, two = (next(iter(DigitEpisodes(root=root, on_device=resident).test_dataloader())) for resident in (False, True))
    assert all(a.equal(b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ways": 6}, "6 ways: there are 5 digits"),
        ({"train_ways": 60}, "60 ways"),
        ({"queries": 174}, "more drawings of each class .* than there are, 174"),
    ],
)
def test_impossible_episodes(options, match):
    with pytest.raises(DataError, match=match):
        DigitEpisodes(**options)
