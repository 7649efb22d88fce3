"""Peak signal-to-noise ratio and structural similarity of each image."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

PAPER_OFFSET = 20 * math.log10(2)
"""6.02 dB: how far the paper's PSNR lies below that of the usual convention.

Its images span [-1, 1], a range of 2, and the released test script takes the peak for 1: 10 log10(1 / MSE) instead of
10 log10(2^2 / MSE).
"""

SSIM_WINDOW = 11
"""Pixels a side of the Gaussian window of SSIM (Wang et al. 2004: 11x11, sigma 1.5): smaller images have none."""


def psnr(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """PSNR in dB of each image ``(B,)``, for ``(B, C, H, W)`` images whose values span ``data_range`` (2 for [-1, 1])."""
    return peak_signal_noise_ratio(image, target, data_range=data_range, reduction="none", dim=(1, 2, 3))


def paper_psnr(usual: float) -> float:
    """What the paper's tables would show for a PSNR in dB of the usual convention (range 2): :data:`PAPER_OFFSET` less."""
    return usual - PAPER_OFFSET


def ssim(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Structural similarity of each image ``(B,)``, at most 1, for ``(B, C, H, W)`` images of at least ``SSIM_WINDOW`` a side."""
    values = structural_similarity_index_measure(image, target, data_range=data_range, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(image))
