"""A small classifier whose penultimate layer is a feature extractor for Frechet distances on its own kind of images."""

from __future__ import annotations

from torch import Tensor, nn


class Features(nn.Module):
    """Two strided convolutions with batch norms, one linear layer: images to ``num_features`` non-negative numbers.

    Args:
        image_shape: ``(C, H, W)`` of the images, at least 4 pixels a side.
        num_features: width of the feature vector.
        channels: of the two convolutions.

    Raises:
        ValueError: if the images are too small for two halvings.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_features: int = 64, channels: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        depth, height, width = image_shape
        if min(height, width) < 4:
            raise ValueError(f"the feature extractor halves its images twice: {height}x{width} is less than 4 pixels a side")
        self.image_shape = tuple(image_shape)
        self.num_features = num_features
        self.channels = tuple(channels)
        area = -(-height // 4) * -(-width // 4)
        self.layers = nn.Sequential(
            *_halving(depth, channels[0]),
            *_halving(channels[0], channels[1]),
            nn.Flatten(),
            nn.Linear(channels[1] * area, num_features),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [-1, 1] to ``(B, num_features)``."""
        return self.layers(image)

    @property
    def settings(self) -> dict[str, object]:
        """The arguments that make this net again, as plain data."""
        return {"image_shape": list(self.image_shape), "num_features": self.num_features, "channels": list(self.channels)}


def _halving(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution of stride 2 with batch norm and ReLU: ``(H, W)`` to ``(ceil(H / 2), ceil(W / 2))``."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
