"""The layers of the MDEQ cell (Bai et al. 2020): weight-normalised convolutions, group norms, the residual block."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A weight-normalised 3x3 convolution without bias: a group norm follows each."""
    return weight_norm(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False))


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    """A weight-normalised 1x1 convolution without bias."""
    return weight_norm(nn.Conv2d(inputs, outputs, 1, bias=False))


def group_norm(channels: int, groups: int, gain: float = 1.0) -> nn.GroupNorm:
    """Group norm with at most ``groups`` groups that divide the channels, its weights starting at ``gain``.

    Each sample is normalised by itself, so that the inner optimisation of one does not depend on another (Sec. 4).
    """
    groups = min(groups, channels)
    while channels % groups:  # GroupNorm refuses groups of unequal size
        groups -= 1
    norm = nn.GroupNorm(groups, channels)
    nn.init.constant_(norm.weight, gain)
    return norm


class FiLM(NamedTuple):
    """Feature-wise linear modulation (Perez et al. 2018): ``scale * map + shift``, each ``(B, C)``."""

    scale: Tensor
    shift: Tensor

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)``, each channel scaled and shifted."""
        return self.scale[..., None, None] * maps + self.shift[..., None, None]


class ResidualBlock(nn.Module):
    """conv - norm - (FiLM) - ReLU - conv - (+ injection) - norm - (+ input) - ReLU - norm, the block of one scale.

    ``expansion`` is the width of the hidden map relative to ``channels`` (Table 9: 5).
    """

    def __init__(self, channels: int, expansion: int, groups: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.widen = conv3x3(channels, hidden)
        self.widen_norm = group_norm(hidden, groups)
        self.narrow = conv3x3(hidden, channels)
        self.narrow_norm = group_norm(channels, groups)
        self.out_norm = group_norm(channels, groups)
        self.relu = nn.ReLU()

    def forward(self, z: Tensor, injection: Tensor, film: FiLM | None = None) -> Tensor:
        """z and injection ``(B, C, H, W)`` to ``(B, C, H, W)``; film modulates the ``C * expansion`` hidden channels."""
        hidden = self.widen_norm(self.widen(z))
        inner = self.relu(hidden if film is None else film(hidden))
        inner = self.narrow_norm(self.narrow(inner) + injection)
        return self.out_norm(self.relu(inner + z))
