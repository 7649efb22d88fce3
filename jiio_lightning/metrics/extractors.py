"""What turns images into the features of a Frechet distance, with its name and the hash of its weights."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio_lightning.files import read_tensors
from jiio_lightning.metrics.features import Features

URL_INCEPTION_V3 = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of weights-inception-2015-12-05-6726825d.pth, the Inception of Heusel et al. (2017) as torch-fidelity publishes it."""

FORMAT = "jiio_lightning features 1"
RESERVED = ("fid", "inception")
"""What the name of an extractor must not contain: a distance over other features than Inception's is not an FID."""


class Extractor(ABC):
    """From images to features. Nothing is read before the first use: a run file may name weights that are not there yet."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """What a distance over these features is called: ``fid`` for Inception's, ``frechet_<name>`` for others."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] to features ``(B, F)``."""


class TrainedFeatures(Extractor):
    """A small classifier of the same kind of images, as ``experiments/runs/mnist_features.yaml`` trains one.

    Args:
        path: the weights that ``ExportFeatures`` wrote.
        sha256: what their hash has to be; any unless given, and it is recorded with each distance.

    Raises (on first use):
        FileNotFoundError: if there is no such file.
        ValueError: if it has another hash, or is not an export of features.
    """

    def __init__(self, path: str, sha256: str | None = None) -> None:
        self.path = Path(path)
        self.sha256 = sha256

    @property
    def metric(self) -> str:
        return f"frechet_{self._contents['name']}"

    @cached_property
    def fingerprint(self) -> str:
        if not self.path.is_file():
            raise FileNotFoundError(
                f"there are no weights of a feature extractor in {self.path}: train them, for example by "
                "`python -m experiments fit --config experiments/runs/mnist_features.yaml`, or name others"
            )
        return checked_hash(self.path, self.sha256)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        if tuple(image.shape[1:]) != self._net.image_shape:
            raise ValueError(
                f"the features of {self.path} are of images of {self._net.image_shape}, these are {tuple(image.shape[1:])}: "
                "train an extractor on them"
            )
        return self._net.to(image.device)(image.float())

    @cached_property
    def _contents(self) -> dict[str, Any]:
        self.fingerprint  # noqa: B018  # before anything is loaded
        contents = read_tensors(self.path, "features that ExportFeatures wrote")
        if not isinstance(contents, dict) or contents.get("format") != FORMAT:
            raise ValueError(f"{self.path} holds no features that ExportFeatures wrote: name another file")
        check_name(contents["name"])
        return contents

    @cached_property
    def _net(self) -> Features:
        net = Features(**self._contents["settings"])
        net.load_state_dict(self._contents["state_dict"])
        return net.eval()


class Inception(Extractor):
    """The 2048 features of the FID (Heusel et al. 2017), by torch-fidelity's port of the original network and its resizing.

    torch-fidelity unpickles the file, so that a file with another hash is refused before it is opened.

    Args:
        path: the weights; downloaded once, to torch's cache, unless given.
        sha256: what their hash has to be.

    Raises (on first use):
        FileNotFoundError: if there is no such file, or none can be downloaded.
        ValueError: if it has another hash.
    """

    metric = "fid"

    def __init__(self, path: str | None = None, sha256: str = INCEPTION_SHA256) -> None:
        self.path = None if path is None else Path(path)
        self.sha256 = sha256

    @cached_property
    def fingerprint(self) -> str:
        return checked_hash(self._file, self.sha256)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        (features,) = self._net.to(image.device)(as_bytes(image).expand(-1, 3, -1, -1))
        return features

    @cached_property
    def _file(self) -> Path:
        if self.path is None:
            return _downloaded()
        if not self.path.is_file():
            raise FileNotFoundError(f"there are no Inception weights {self.path}: get them from {URL_INCEPTION_V3}")
        return self.path

    @cached_property
    def _net(self) -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # only FIDs need it

        self.fingerprint  # noqa: B018  # before anything is unpickled
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(self._file))


def as_bytes(image: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes 0 .. 255, rounded to the nearest: what an image file holds, and what Inception takes."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_name(name: str) -> None:
    """Refuse, by a ValueError, a name that cannot be part of a metric's name, or that would pass for an FID (``RESERVED``)."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"the name of an extractor is part of a metric's name: small letters, digits and _, not {name!r}")
    if any(word in name for word in RESERVED):
        raise ValueError(f"{name!r} would pass for an FID, which is over Inception's features only: choose another name")


def checked_hash(path: Path, wanted: str | None) -> str:
    """SHA-256 of a file; a ValueError if it is not the wanted one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted is not None and found != wanted.lower():
        raise ValueError(f"{path} was not loaded: its SHA-256 is {found}, not {wanted}")
    return found


def _downloaded() -> Path:
    """torch-fidelity's published weights in torch's cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:  # no network (URLError), or other bytes
            raise FileNotFoundError(
                f"Inception's weights cannot be downloaded from {URL_INCEPTION_V3} ({error}): bring the file by other means and "
                "name its path, or use the features of a classifier (TrainedFeatures)"
            ) from error
    return path
