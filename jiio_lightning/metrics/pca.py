"""The linear baseline of a latent model: what PCA reconstructs from as many numbers."""

from __future__ import annotations

import warnings

import torch
from pytorch_lightning.utilities import rank_zero_info
from sklearn.decomposition import PCA
from torch import Tensor

EXACT = 4096
"""Pixels up to which the covariance is decomposed exactly; it has the square of this many entries."""


def fit_pca(train: Tensor, components: int) -> PCA:
    """PCA of images ``(N, C, H, W)``, with fewer components where the images have fewer dimensions."""
    flat = train.flatten(1).cpu().numpy()
    rank_zero_info(f"PCA: {components} components of {len(flat)} images of {flat.shape[1]} numbers")
    if len(flat) <= components < flat.shape[1]:
        warnings.warn(
            f"PCA of {len(flat)} images has fewer than {components} components: fit it to more, this is no baseline of as many",
            stacklevel=2,
        )
    solver = "covariance_eigh" if flat.shape[1] <= EXACT else "randomized"
    return PCA(min(components, *flat.shape), svd_solver=solver, random_state=0).fit(flat)


def pca_errors(pca: PCA, images: Tensor) -> Tensor:
    """Mean squared error per pixel of each image ``(B,)``, for ``(B, C, H, W)`` images in the units of the training images."""
    flat = images.flatten(1).cpu().numpy()
    return torch.from_numpy(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean(axis=1))


def pca_error(train: Tensor, test: Tensor, components: int) -> float:
    """Mean squared error per pixel on test images ``(N, C, H, W)`` of a PCA fitted to training images, in their units."""
    return float(pca_errors(fit_pca(train, components), test).mean())
