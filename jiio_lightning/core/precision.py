"""Arithmetic for what judges: float32 where training may be shorter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """A block without autocast on a kind of device, and without the convolutions in TensorFloat-32 that PyTorch takes on a GPU.

    Example:
        >>> with torch.autocast("cpu"), full_precision("cpu"):
        ...     torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32
        (False, False)
        >>> torch.backends.cudnn.allow_tf32
        True
    """
    place, name, exact = _of_convolutions()
    before = getattr(place, name)
    setattr(place, name, exact)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        setattr(place, name, before)


def convolutions() -> bool | str:
    """In what a GPU convolves at present, as PyTorch says it."""
    place, name, _ = _of_convolutions()
    return getattr(place, name)


def _of_convolutions() -> tuple[Any, str, bool | str]:
    """Where PyTorch keeps it, and what stands for float32 there."""
    try:
        torch.backends.cudnn.allow_tf32  # noqa: B018
    except RuntimeError:  # somebody has set fp32_precision, since PyTorch 2.9: the old name may not be asked any more
        return torch.backends.cudnn.conv, "fp32_precision", "ieee"  # type: ignore[attr-defined]
    return torch.backends.cudnn, "allow_tf32", False
