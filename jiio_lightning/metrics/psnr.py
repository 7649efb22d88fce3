"""Peak signal-to-noise ratio and structural similarity of each image.

The paper's PSNRs are 20 log10(2) = 6.02 dB lower than these: its images span [-1, 1], and the released test script takes the peak
for 1, 10 log10(1 / MSE), where the usual convention takes the range, 10 log10(2^2 / MSE).
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11
"""Pixels a side of the Gaussian window of SSIM (Wang et al. 2004: 11x11, sigma 1.5): smaller images have none."""


def psnr(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """PSNR in dB of each image ``(B,)``, for ``(B, C, H, W)`` images whose values span ``data_range`` (2 for [-1, 1])."""
    return peak_signal_noise_ratio(image, target, data_range=data_range, reduction="none", dim=(1, 2, 3))


def ssim(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Structural similarity of each image ``(B,)``, at most 1, for ``(B, C, H, W)`` images of at least ``SSIM_WINDOW`` a side."""
    values = structural_similarity_index_measure(image, target, data_range=data_range, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(image))
