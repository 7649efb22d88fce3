"""The encoders of the baselines."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines import ConvEncoder, MDEQEncoder
from jiio_lightning.core.layers import Layers
from jiio_lightning.core.solvers import Anderson, FixedPoint


def layers() -> Layers:
    tight = FixedPoint(Anderson(memory=5), 200, 1e-12)
    return Layers(tight, tight)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (15, 15), (16, 16), (28, 28), (32, 32), (33, 40), (64, 64)])
@pytest.mark.parametrize("kernel", [4, 5])
def test_an_image_of_any_size_has_a_code(size, kernel):
    code = ConvEncoder(3, (2, *size), 1, kernel)(torch.randn(2, 2, *size), layers())
    assert code.mean.shape == (2, 3) and code.log_variance is None


def test_the_sizes_of_the_rae_paper():
    """128 to 1024 channels, down to 4x4."""
    with torch.device("meta"):
        encoder = ConvEncoder(64, (3, 64, 64), kernel=5)
    kernels = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(128, 3, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5), (1024, 512, 5, 5)]
    assert encoder.layers[-1].in_features == 1024 * 4 * 4


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r"images of at least 8 pixels a side, image_shape is \(1, 7, 8\)"):
        ConvEncoder(3, (1, 7, 8))
    with pytest.raises(ValueError, match="an image of 9x8 cannot be divided by downscale=2"):
        MDEQEncoder(3, (8, 8), (1, 9, 8), downscale=2)


def test_a_variational_encoder_gives_means_and_variances():
    torch.manual_seed(0)
    encoder = ConvEncoder(3, (1, 8, 8), 2, variational=True).eval()
    image = torch.randn(4, 1, 8, 8)
    code, numbers = encoder(image, layers()), encoder.numbers(image, layers())
    assert code.mean.equal(numbers[:, :3]) and code.log_variance.equal(numbers[:, 3:])


def test_the_mdeq_encoder_is_its_head_at_the_equilibrium():
    torch.manual_seed(0)
    encoder = MDEQEncoder(3, (8, 8), (1, 8, 8), expansion=1, features=16, head_width=4, variational=True).double()
    image, solve = torch.randn(2, 1, 8, 8, dtype=torch.float64), layers()
    code = encoder(image, solve)
    (layer,) = solve.solved
    assert layer.residual.max() < 1e-11 and layer.x.equal(encoder.inject(image))
    numbers = encoder.head(encoder.cell.pyramid.unpack(layer.z))
    assert torch.allclose(torch.cat([code.mean, code.log_variance], dim=1), numbers) and numbers.shape == (2, 6)
