from __future__ import annotations

import torch

from jiio_lightning.core import Augmented


def random_state() -> Augmented:
    return Augmented(torch.randn(2, 5), torch.randn(2, 5), torch.randn(2, 3))


def test_packing_is_a_round_trip_in_the_order_z_mu_x() -> None:
    v = random_state()
    packed = v.pack()
    assert packed.shape == (2, 13)
    assert torch.equal(packed, torch.cat([v.z, v.mu, v.x], dim=1))
    again = Augmented.unpack(packed, v.hidden)
    assert all(torch.equal(a, b) for a, b in zip((v.z, v.mu, v.x), (again.z, again.mu, again.x), strict=True))


def test_unpacking_copies_nothing() -> None:
    packed = random_state().pack()
    v = Augmented.unpack(packed, 5)
    packed.zero_()
    assert not v.z.any() and not v.mu.any() and not v.x.any()


def test_start_is_zero_in_z_and_mu_which_share_no_memory() -> None:
    x = torch.randn(2, 3)
    v = Augmented.start(x, hidden=5)
    assert torch.equal(v.x, x) and v.z.shape == v.mu.shape == (2, 5) and v.hidden == 5
    assert not v.z.any() and not v.mu.any()
    v.z.fill_(1.0)
    assert not v.mu.any()


def test_clone_and_detach() -> None:
    v = random_state()
    copy = v.clone()
    v.z.zero_()
    assert copy.z.any()
    tracked = Augmented(*(block.requires_grad_() for block in (v.z, v.mu, v.x)))
    assert not any(block.requires_grad for block in vars(tracked.detach()).values())
