"""How the scales of an MDEQ exchange information: strided convolutions downwards, 1x1 and upsampling upwards."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from jiio_lightning.models.blocks import conv1x1, conv3x3, group_norm
from jiio_lightning.models.multiscale import Pyramid


class Down(nn.Module):
    """From scale ``source`` to the coarser ``target``, indices into ``channels``: a strided 3x3 convolution for each halving."""

    def __init__(self, channels: tuple[int, ...], source: int, target: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for scale in range(source, target):
            last = scale + 1 == target
            width = channels[target] if last else channels[source]
            layers += [conv3x3(channels[source], width, stride=2), group_norm(width, groups)]
            layers += [] if last else [nn.ReLU()]  # none behind the last: the fused sum has its own
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Up(nn.Module):
    """From a coarser scale to a finer one: 1x1 convolution, norm, nearest upsampling to the finer map's ``size``."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], groups: int) -> None:
        super().__init__()
        self.mix = conv1x1(inputs, outputs)
        self.norm = group_norm(outputs, groups)
        self.size = size

    def forward(self, z: Tensor) -> Tensor:
        return F.interpolate(self.norm(self.mix(z)), size=self.size, mode="nearest")


class Fusion(nn.Module):
    """Each scale becomes the sum of all scales brought to its shape, then ReLU - 1x1 - norm (post-fusion).

    ``gain``: initial weights of the last group norms.
    """

    def __init__(self, pyramid: Pyramid, groups: int, gain: float) -> None:
        super().__init__()
        scales = range(len(pyramid.channels))
        self.paths = nn.ModuleList(nn.ModuleList(_path(pyramid, i, j, groups) for i in scales) for j in scales)
        self.post = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv1x1(width, width), group_norm(width, groups, gain)) for width in pyramid.channels
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of all scales to maps of the same shapes."""
        return [
            post(sum(path(z) for path, z in zip(paths, maps, strict=True)))
            for paths, post in zip(self.paths, self.post, strict=True)
        ]


def _path(pyramid: Pyramid, source: int, target: int, groups: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source < target:
        return Down(pyramid.channels, source, target, groups)
    _, *size = pyramid.shapes[target]
    return Up(pyramid.channels[source], pyramid.channels[target], (size[0], size[1]), groups)
