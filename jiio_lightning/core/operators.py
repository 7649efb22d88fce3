"""Measurement operators of inverse problems (Sec. 4.2): what is observed of an image.

Images span [-1, 1]; standard deviations are quoted in those units. Every operator is linear in the image. Its random parts (where
a hole is, the noise) come from one generator for each sample and from nothing else, so that they do not depend on the batch, the
device or the precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur  # type: ignore[import-untyped]

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measurement:
    r"""What is observed of a batch of images, :math:`\hat y = A y + \varepsilon` (Eq. 21).

    Example:
        >>> image = torch.ones(1, 1, 2, 2)
        >>> half = Measurement(y=0.5 * image, apply=lambda image: 0.5 * image, shown=0.5 * image)
        >>> torch.equal(half.apply(image), half.y)
        True
    """

    y: Tensor  # (B, ...)
    apply: LinearMap  # A with this batch's random parts fixed: images (B, C, H, W) to the shape of y, differentiable
    shown: Tensor  # y as images (B, C, H, W): unseen pixels are 0, a small image is enlarged
    seen: Tensor | None = None  # (B, 1, H, W) bool, False in the holes; None where no pixel is left out


class Operator(ABC):
    """Measures images. Without state: the random parts are a function of the generators.

    Example:
        >>> class Grey(Operator):
        ...     def measure(self, image, generators):
        ...         return Measurement(image.mean(1, keepdim=True), lambda image: image.mean(1, keepdim=True), image)
        >>> Grey()(torch.rand(2, 3, 4, 4), [torch.Generator() for _ in range(2)]).y.shape
        torch.Size([2, 1, 4, 4])
    """

    def __call__(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        """Measure images ``(B, C, H, W)`` in [-1, 1], with one generator (on the host) for each sample.

        Raises:
            ValueError: if these are not images, or not one generator for each.
        """
        if image.ndim != 4 or not image.is_floating_point():
            raise ValueError(f"an operator takes images (B, C, H, W) of floats, got {tuple(image.shape)} of {image.dtype}")
        if len(generators) != len(image):
            raise ValueError(f"an operator takes one generator for each image, got {len(generators)} for {len(image)}")
        return self.measure(image, generators)

    @abstractmethod
    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        """The measurement of a checked batch."""

    def show(self, y: Tensor, size: Sequence[int]) -> Tensor:
        """What is measured as images of the original ``size`` (H, W); as it is unless an operator says otherwise."""
        return y


class Identity(Operator):
    """A = I: the image itself. Eq. 22 is then the generator's own inner problem (Eq. 20).

    Example:
        >>> image = torch.rand(1, 1, 4, 4)
        >>> torch.equal(Identity()(image, [torch.Generator()]).y, image)
        True
    """

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        return Measurement(image, lambda image: image, image)


class Mask(Operator):
    """A sets some pixels to 0, in all channels alike (inpainting).

    Raises:
        ValueError: for a mask that hides all pixels, or none.

    Example:
        >>> class LeftHalf(Mask):
        ...     def draw(self, height, width, generator):
        ...         return (torch.arange(width) < width // 2).expand(height, width)
        >>> LeftHalf()(torch.ones(1, 1, 1, 4), [torch.Generator()]).y.flatten().tolist()
        [1.0, 1.0, 0.0, 0.0]
    """

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        height, width = image.shape[-2:]
        masks = torch.stack([self.draw(height, width, generator) for generator in generators])
        shown = masks.flatten(1).any(dim=1) & ~masks.flatten(1).all(dim=1)
        if not bool(shown.all()):  # an error in the hole would be 0 / 0
            raise ValueError(f"{type(self).__name__} hides all or none of {height}x{width} pixels: give it another share")
        seen = masks.unsqueeze(1).to(image.device)

        def apply(image: Tensor) -> Tensor:
            return image * seen

        y = apply(image)
        return Measurement(y, apply, y, seen)

    @abstractmethod
    def draw(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """The pixels that one sample keeps ``(H, W)``, bool, on the host."""


class SquareMask(Mask):
    """A square hole inside the image, all positions equally likely (Sec. 4.2: 20x20 of 64x64).

    Args:
        share: side of the hole over the shorter side of the image, in (0, 1); rounded to whole pixels, at least one.

    Raises:
        ValueError: for another share.

    Example:
        >>> measurement = SquareMask(share=0.5)(torch.ones(1, 1, 8, 8), [torch.Generator().manual_seed(0)])
        >>> int((~measurement.seen).sum())
        16
    """

    def __init__(self, share: float = 20 / 64) -> None:
        if not 0 < share < 1:
            raise ValueError(f"SquareMask needs 0 < share < 1, got {share}")
        self.share = share

    def side(self, height: int, width: int) -> int:
        """Pixels a side of the hole."""
        return max(1, int(self.share * min(height, width) + 0.5))

    def draw(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        side = self.side(height, width)
        top, left = (int(torch.randint(room - side + 1, (), generator=generator)) for room in (height, width))
        seen = torch.ones(height, width, dtype=torch.bool)
        seen[top : top + side, left : left + side] = False
        return seen


class PixelMask(Mask):
    """Single pixels are missing: a fixed number of them is seen, every choice equally likely.

    Args:
        keep: share of the pixels that is seen, in (0, 1).

    Raises:
        ValueError: for another share.

    Example:
        >>> measurement = PixelMask(keep=0.25)(torch.ones(1, 1, 8, 8), [torch.Generator().manual_seed(0)])
        >>> int(measurement.seen.sum())
        16
    """

    def __init__(self, keep: float = 0.5) -> None:
        if not 0 < keep < 1:
            raise ValueError(f"PixelMask needs 0 < keep < 1, got {keep}")
        self.keep = keep

    def draw(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        order = torch.randperm(height * width, generator=generator)
        return (order < round(self.keep * height * width)).view(height, width)


class GaussianBlur(Operator):
    """A is the convolution with a normalised Gaussian, the image mirrored at its border.

    Args:
        sigma: standard deviation in pixels, above 0.
        radius: pixels from the kernel's middle to its edge; 3 sigma unless given.

    Raises:
        ValueError: for a sigma or a radius that is not positive, or images that the kernel does not fit in.

    Example:
        >>> flat = torch.full((1, 1, 8, 8), 0.3, dtype=torch.float64)
        >>> torch.allclose(GaussianBlur(sigma=1.0)(flat, [torch.Generator()]).y, flat)
        True
    """

    def __init__(self, sigma: float = 1.0, radius: int | None = None) -> None:
        self.radius = int(3 * sigma + 0.5) if radius is None else radius
        if sigma <= 0 or self.radius < 1:
            raise ValueError(f"GaussianBlur needs sigma > 0 and a radius of at least 1 pixel, got {sigma} and {self.radius}")
        self.sigma = sigma

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        if self.radius >= min(image.shape[-2:]):
            raise ValueError(
                f"GaussianBlur(sigma={self.sigma:g}) reaches {self.radius} pixels far, which images of {tuple(image.shape[-2:])} "
                "cannot be mirrored by: lower sigma or radius"
            )

        def apply(image: Tensor) -> Tensor:
            return gaussian_blur(image, [2 * self.radius + 1] * 2, [self.sigma] * 2)

        y = apply(image)
        return Measurement(y, apply, y)


class Downsampling(Operator):
    """A averages blocks of pixels (super-resolution).

    Args:
        factor: pixels a side of a block, at least 2.

    Raises:
        ValueError: for a smaller factor, or images whose sides it does not divide.

    Example:
        >>> Downsampling(2)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), [torch.Generator()]).y.tolist()
        [[[[2.5]]]]
    """

    def __init__(self, factor: int = 2) -> None:
        if factor < 2:
            raise ValueError(f"Downsampling needs a factor of at least 2, got {factor}")
        self.factor = factor

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        height, width = image.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"Downsampling(factor={self.factor}) does not divide images of {height}x{width}")

        def apply(image: Tensor) -> Tensor:
            return F.avg_pool2d(image, self.factor)

        y = apply(image)
        return Measurement(y, apply, self.show(y, (height, width)))

    def show(self, y: Tensor, size: Sequence[int]) -> Tensor:
        """Every pixel as its block."""
        return F.interpolate(y, size=tuple(size), mode="nearest")


class GaussianNoise(Operator):
    r"""Another operator's measurement with noise.

    .. math:: \hat y = A y + \varepsilon, \quad \varepsilon \sim \mathcal{N}(0, \sigma^2 I)

    A hole stays empty: there is no noise on what is not measured. The result is not clipped to [-1, 1] (as in the released code).

    Args:
        std: :math:`\sigma` in the units of images that span [-1, 1] (Table 4: 0.2 and 0.4), above 0.
        of: the operator without noise; Identity, which makes it denoising, unless given.

    Raises:
        ValueError: for a std that is not positive.

    Example:
        >>> noisy = GaussianNoise(std=0.2)(torch.zeros(1, 1, 64, 64), [torch.Generator().manual_seed(0)])
        >>> round(noisy.y.std().item(), 2), torch.equal(noisy.apply(noisy.y), noisy.y)
        (0.2, True)
    """

    def __init__(self, std: float = 0.2, of: Operator | None = None) -> None:
        if std <= 0:
            raise ValueError(f"GaussianNoise needs std > 0, got {std}")
        self.std = std
        self.of = Identity() if of is None else of

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        clean = self.of.measure(image, generators)
        # On the host and in float32, whatever the image is: the same noise on every device and in every precision.
        rows = [torch.randn(clean.y.shape[1:], generator=generator, dtype=torch.float32) for generator in generators]
        noise = self.std * torch.stack(rows).to(clean.y)
        y = clean.y + (noise if clean.seen is None else noise * clean.seen)
        return replace(clean, y=y, shown=self.show(y, image.shape[-2:]))

    def show(self, y: Tensor, size: Sequence[int]) -> Tensor:
        return self.of.show(y, size)
