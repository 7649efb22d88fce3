"""What the loaders yield: named tuples, which Lightning moves between devices and pins as they are."""

from typing import NamedTuple

from torch import Tensor


class ImageBatch(NamedTuple):
    """A batch of images.

    ``index`` is what masks, noise and every other random choice about a sample are a function of, with the seed and
    the epoch; it survives shuffling, workers, ranks and a resume.
    """

    image: Tensor  # (B, C, H, W) float32 in the data module's value range
    label: Tensor  # (B,) int64, zeros where the set has no labels
    index: Tensor  # type: ignore[assignment]  # (B,) int64, position in the split


class EpisodeBatch(NamedTuple):
    """A batch of T few-shot tasks with N ways, K support and Q query drawings of each.

    Rows are sorted by class: the labels are ``0 0 .. 1 1 .. N-1`` in support and in query.
    """

    support: Tensor  # (T, N * K, 1, H, W) float32
    support_label: Tensor  # (T, N * K) int64
    query: Tensor  # (T, N * Q, 1, H, W) float32
    query_label: Tensor  # (T, N * Q) int64
    index: Tensor  # type: ignore[assignment]  # (T,) int64, number of the episode
