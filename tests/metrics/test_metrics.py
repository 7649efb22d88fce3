"""Metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jiio_lightning.metrics import pca
from jiio_lightning.metrics.psnr import psnr, ssim


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 2 * 4 * 4, generator=generator)
    made = (torch.randn(80, 12, generator=generator) @ mixing + 3).view(80, 2, 4, 4)
    return made[:60], made[60:]


@pytest.mark.parametrize("exact", [4096, 1], ids=["covariance", "randomized"])
def test_pca_is_the_svd(images, monkeypatch, exact):
    monkeypatch.setattr(pca, "EXACT", exact)
    train, test = (part.flatten(1).double().numpy() for part in images)
    mean = train.mean(axis=0)
    axes = np.linalg.svd(train - mean)[2][:5]
    left = (test - mean) - (test - mean) @ axes.T @ axes
    assert pca.pca_error(*images, components=5) == pytest.approx((left**2).mean(), rel=2e-3 if exact == 1 else 1e-4)
    errors = pca.pca_errors(pca.fit_pca(images[0], 5), images[1])
    assert errors.shape == (20,) and errors.numpy() == pytest.approx((left**2).mean(axis=1), rel=0.05)


def test_more_components_than_there_are_dimensions(images):
    assert pca.pca_error(*images, components=1000) < 1e-6


def test_psnr_is_its_formula(images):
    image, target = images[0][:20].clamp(-1, 1), images[1].clamp(-1, 1)
    squared = (image - target).square().mean(dim=(1, 2, 3))
    assert torch.allclose(psnr(image, target, 2.0), 10 * torch.log10(4.0 / squared), rtol=1e-5)
    assert torch.allclose(psnr(image, target, 2.0) - psnr(image, target, 1.0), torch.tensor(6.0206), atol=1e-3)


def test_ssim_of_a_shifted_constant_is_its_formula():
    """Without variance only the luminance term is left: (2 a b + c) / (a^2 + b^2 + c), c = (0.01 range)^2."""
    image, target = torch.full((2, 1, 16, 16), 0.5), torch.full((2, 1, 16, 16), 0.5)
    target[1] = 0.25
    c = (0.01 * 2) ** 2
    wanted = [1.0, (2 * 0.5 * 0.25 + c) / (0.5**2 + 0.25**2 + c)]
    assert ssim(image, target, 2.0).tolist() == pytest.approx(wanted, rel=1e-4)


def test_pca_of_too_few_images_is_no_baseline(images):
    with pytest.warns(UserWarning, match="PCA of 4 images has fewer than 5 components"):
        assert pca.fit_pca(images[0][:4], 5).n_components_ == 4
