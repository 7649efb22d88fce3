"""Normalised weights computed once for the many evaluations of f that a solve takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn
from torch.nn.utils import parametrize


@contextmanager
def cached_weights(module: nn.Module) -> Iterator[None]:
    """Every parametrised weight of a module (weight norm and the like) computed once, in the caller's grad mode.

    Use it around a whole training step: solve, surrogate and penalty. All of a block shares one graph to the parameters: take one
    backward pass.

    Inside another such block it costs next to nothing: what that block has cached stays as it is.

    Example:
        >>> import torch
        >>> conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3))
        >>> with cached_weights(conv):
        ...     with torch.no_grad():
        ...         _ = conv(torch.ones(1, 1, 3, 3))  # a solve
        ...     conv(torch.ones(1, 1, 3, 3)).sum().backward()
        >>> conv.parametrizations.weight.original1.grad.shape
        torch.Size([1, 1, 3, 3])
    """
    with parametrize.cached():
        # parametrize.cached() alone computes a weight where it is first asked for: in a solve under no_grad without a graph. The
        # surrogate would find that weight in the cache, and its parameters would never be trained.
        for part in module.modules():
            if parametrize.is_parametrized(part):
                for name in cast(nn.ModuleDict, part.parametrizations):
                    getattr(part, name)
        yield
