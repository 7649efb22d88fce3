"""The linear yardstick of a latent model: what PCA reconstructs with as many numbers."""

from __future__ import annotations

from sklearn.decomposition import PCA
from torch import Tensor


def pca_error(train: Tensor, test: Tensor, components: int) -> float:
    """Mean squared error per pixel on test images ``(N, C, H, W)`` of a PCA fitted on train images, in their units."""
    pca = PCA(components, svd_solver="covariance_eigh").fit(train.flatten(1).numpy())
    flat = test.flatten(1).numpy()
    return float(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean())
