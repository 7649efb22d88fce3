"""Dispatch modes that watch what a solve does to the device: synchronisation and memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
SYNCHRONISING = {
    aten._local_scalar_dense.default,  # item(), bool(), float(), int()
    aten.nonzero.default,
    aten.masked_select.default,
    aten.unique_dim.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.lift_fresh.default,  # a tensor made of Python numbers: on a GPU, a copy that the host waits for
}


class NoSynchronisation(TorchDispatchMode):
    """Raises where the host would have to wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SYNCHRONISING:
            raise AssertionError(f"{func} makes the host wait for the device")
        if func is aten.index.Tensor and any(t is not None and t.dtype == torch.bool for t in args[1]):
            raise AssertionError("indexing with a mask makes the host wait for the device")
        return func(*args, **(kwargs or {}))


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that were made under it and are still alive, in Python or in a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def total(self) -> int:
        self.storages = {key: item for key, item in self.storages.items() if not item[0].expired()}
        return sum(size for _, size in self.storages.values())
