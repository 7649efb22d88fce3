"""Miniatures of every data set in its original layout, made on the spot."""

import gzip
import io
import os
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def picture(seed: int, width: int, height: int, kind: str = "PNG") -> bytes:
    """An image file with smooth random contents."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def pixels(blob: bytes) -> np.ndarray:
    """What a decoder sees in an image file, ``(C, H, W)``."""
    return np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).transpose(2, 0, 1)


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, blob in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(blob)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, blob in files.items():
            archive.writestr(name, blob)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    suffix = path.suffix.lstrip(".")
    with tarfile.open(path, "w" if suffix == "tar" else f"w:{suffix}") as archive:
        for name, blob in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    return path


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def mnist_files(train: int = 40, test: int = 12) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (train, 28, 28)),
        "train-labels-idx1-ubyte": rng.integers(0, 10, train),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (test, 28, 28)),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, test),
    }
    return {f"{name}.gz": gzip.compress(idx(array)) for name, array in arrays.items()}


def cifar_pictures(train: int = 3, test: int = 1, kind: str = "PNG") -> dict[str, bytes]:
    """``train/<class>/NNNN`` and ``test/<class>/NNNN``, so many of each class."""
    names = [f"{part}/{c}/{i:04}" for part, n in (("train", train), ("test", test)) for c in CLASSES for i in range(n)]
    return {f"{name}.{kind.lower()}": picture(seed, 32, 32, kind) for seed, name in enumerate(names)}


def cifar_records(count: int, seed: int) -> np.ndarray:
    records = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


def cifar_binary(count: int = 4) -> dict[str, bytes]:
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {f"cifar-10-batches-bin/{name}": cifar_records(count, seed).tobytes() for seed, name in enumerate(names)}


def celeba_pictures(count: int = 20) -> dict[str, bytes]:
    return {f"{number:06}.jpg": picture(number, 178, 218, "JPEG") for number in range(1, count + 1)}


def omniglot_drawings(characters: int, seed: int) -> np.ndarray:
    """Random strokes, bool ``(characters, 20, 105, 105)``, True is paper."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((characters, 20, 15, 15)) < 0.8
    return coarse.repeat(7, axis=2).repeat(7, axis=3)


def omniglot_pictures(part: str, drawings: np.ndarray) -> dict[str, bytes]:
    """The layout of torchvision's zips."""
    files = {}
    for number, character in enumerate(drawings):
        for drawer, drawing in enumerate(character):
            file = io.BytesIO()
            Image.fromarray(drawing).save(file, "PNG")
            name = f"{part}/Alphabet_{number // 2}/character{number % 2 + 1:02}/{number:04}_{drawer + 1:02}.png"
            files[name] = file.getvalue()
    return files


def write(path: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, a zip or a tar, by the name of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = write_zip if path.suffix == ".zip" else write_tar if ".tar" in path.suffixes else write_files
    return writer(path, files)


@pytest.fixture(scope="session")
def mini() -> ModuleType:
    """The functions above: test modules cannot import a conftest by name."""
    return sys.modules[__name__]


@pytest.fixture
def shared_data() -> Path:
    """The real data, where the environment says so."""
    if "JIIO_SHARED_DATA" not in os.environ:
        pytest.skip("JIIO_SHARED_DATA does not say where the real data are")
    return Path(os.environ["JIIO_SHARED_DATA"])
