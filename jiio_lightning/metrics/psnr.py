"""Peak signal-to-noise ratio of each image."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio


def psnr(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """PSNR in dB of each image ``(B,)``, for ``(B, C, H, W)`` images whose values span ``data_range`` (2 for [-1, 1])."""
    return peak_signal_noise_ratio(image, target, data_range=data_range, reduction="none", dim=(1, 2, 3))
