"""The convolutional net of few-shot learning: what MAML, Reptile, iMAML and prototypical networks are compared on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from jiio_lightning.models.blocks import group_norm

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "episode": partial(nn.BatchNorm2d, track_running_stats=False),
    "running": nn.BatchNorm2d,
    "group": partial(group_norm, groups=8),
}


class Conv4(nn.Module):
    """Four times conv 3x3 - norm - ReLU - halving, then one linear layer (Vinyals et al. 2016).

    Args:
        image_shape: ``(C, H, W)``.
        num_classes: logits of the linear layer; None for an embedding, which has none (prototypical networks).
        filters: of each convolution.
        norm: ``episode``: batch norm by the images that are passed together, in evaluation too, so that a query image is judged
            with the other ones of its episode (transductive; MAML, Reptile, iMAML). ``running``: batch norm by running means in
            evaluation (Snell et al. 2017). ``group``: each image by itself.
        strided: halve by convolutions of stride 2 (the nets of MAML, Reptile and iMAML on Omniglot), not by max-pooling behind
            each (Vinyals et al. 2016, Snell et al. 2017), which costs about four times as much.

    Raises:
        ValueError: for images that four poolings leave nothing of.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: PositiveInt | None = 5,
        filters: PositiveInt = 64,
        norm: Literal["episode", "running", "group"] = "episode",
        strided: bool = False,
    ) -> None:
        super().__init__()
        depth, *sides = image_shape
        if not strided and min(sides) < 16:
            raise ValueError(
                f"four poolings leave nothing of images of {image_shape}: set strided, or take at least 16 pixels a side"
            )
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.norm = norm
        widths = [depth, *[filters] * 4]
        height, width = ((side + 15) // 16 if strided else side // 16 for side in sides)
        self.features = filters * height * width
        self.layers = nn.Sequential(
            *(_block(before, after, norm, strided) for before, after in zip(widths[:-1], widths[1:], strict=True)),
            nn.Flatten(),
            nn.Identity() if num_classes is None else nn.Linear(self.features, num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, num_classes)`` or an embedding ``(B, features)``."""
        return self.layers(image)


def _block(inputs: int, outputs: int, norm: str, strided: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2 if strided else 1, padding=1, bias=False)  # the norm has a bias
    return nn.Sequential(convolution, NORMS[norm](outputs), nn.ReLU(), nn.Identity() if strided else nn.MaxPool2d(2))
