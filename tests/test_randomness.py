"""Random choices are pure functions, and their streams never change."""

import torch

from jiio_lightning.randomness import (
    DataStream,
    SampleStream,
    epoch_flips,
    epoch_order,
    fixed_permutation,
    generator,
    sample_generators,
)


def test_order_and_flips_are_pure_functions():
    assert (epoch_order(1, 2, 50) == epoch_order(1, 2, 50)).all()
    assert sorted(epoch_order(1, 2, 50)) == list(range(50))
    for other in ((2, 2), (1, 3)):
        assert (epoch_order(*other, 50) != epoch_order(1, 2, 50)).any()
        assert (epoch_flips(*other, 50) != epoch_flips(1, 2, 50)).any()
    assert (epoch_flips(1, 2, 50)[:20] == epoch_flips(1, 2, 20)).all()  # a sample's flip does not depend on the others
    assert abs(epoch_flips(0, 0, 10_000).mean() - 0.5) < 0.02


def test_the_fixed_permutation_never_changes():
    assert fixed_permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


def test_the_streams_never_change():
    """The same numbers as in the first release: a seed goes on meaning what it meant."""
    assert generator(3, DataStream.TEST_EPISODE, 7).integers(1000, size=3).tolist() == [57, 80, 616]
    drawn = [
        torch.randint(1000, (1,), generator=g).item() for g in sample_generators(4, 9, torch.tensor([0, 5]), SampleStream.LATENT)
    ]
    assert drawn == [480, 421]


def test_a_sample_has_its_own_numbers_wherever_it_comes():
    one, two = (sample_generators(0, 1, torch.tensor(index)) for index in ([3, 8], [8]))
    assert torch.rand(4, generator=one[1]).equal(torch.rand(4, generator=two[0]))
    assert not torch.rand(4, generator=one[0]).equal(torch.rand(4, generator=two[0]))
