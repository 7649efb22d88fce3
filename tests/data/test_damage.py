"""Files damaged at random: one line says so and nothing half-written is left, or what is prepared is what it was."""

import gzip
import io
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from jiio_lightning.data import CIFAR10, MNIST, DataError, ImageFolder, Omniglot
from jiio_lightning.data.pictures import Frame, decode
from jiio_lightning.data.prepared import Prepared, prepare
from jiio_lightning.data.rows import BLOCKS

ROUNDS = 4  # of each kind of damage, to each file; 150 were tried once
pytestmark = pytest.mark.filterwarnings("ignore")


def damaged(whole: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """A flipped bit, a cut, random bytes in the middle, random bytes alone."""
    near = int(rng.integers(min(len(whole), 512)))  # to one of the ends, where headers are
    place = int(rng.choice([rng.integers(len(whole)), near, len(whole) - 1 - near]))
    yield whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :]
    yield whole[:place]
    yield whole[:place] + rng.bytes(8) + whole[place + 8 :]
    yield rng.bytes(place)


ARCHIVES = {
    "x.zip": (ImageFolder, "cifar_pictures"),
    "x.tar": (CIFAR10, "cifar_binary"),
    "x.tar.gz": (CIFAR10, "cifar_binary"),
    "x.tar.xz": (ImageFolder, "cifar_pictures"),
    "x.tar.bz2": (MNIST, "mnist_files"),
}


def outcome(recipe, source, root) -> str:
    """The checksum of what was prepared, or the error; the root is left as it was."""
    try:
        prepared = prepare(recipe, source, root, strict=False)
    except DataError as error:
        assert "\n" not in str(error)
        assert [path.name for path in root.iterdir()] == [f".{recipe.name}.lock"]
        return f"error: {error}"
    found = "".join(prepared.manifest.checksums.values())
    for path in prepared.folder.iterdir():
        path.unlink()
    prepared.folder.rmdir()
    return found


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive(mini, tmp_path, name):
    kind, files = ARCHIVES[name]
    recipe = kind(size=32, shuffle=False) if kind is ImageFolder else kind()
    archive = mini.write(tmp_path / name, getattr(mini, files)())
    whole = archive.read_bytes()
    good = outcome(recipe, archive, tmp_path / "root")
    assert "error" not in good
    found = []
    for seed in range(ROUNDS):
        for blob in damaged(whole, np.random.default_rng(seed)):
            archive.write_bytes(blob)
            found.append(outcome(recipe, archive, tmp_path / "root"))
    unseen = [one for one in found if one != good and not one.startswith("error")]
    assert not unseen or name == "x.tar"  # which has no checksum of its contents; that of the whole is known when strict


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_a_damaged_image(mini, kind):
    whole = mini.picture(0, 40, 40, kind)
    good, unseen = decode("x", whole, Frame(32)), 0
    for seed in range(4 * ROUNDS):
        for blob in damaged(whole, np.random.default_rng(seed)):
            try:
                unseen += not np.array_equal(decode("x", blob, Frame(32)), good)
            except DataError as error:
                assert "\n" not in str(error)
    assert not unseen or kind != "PNG"  # the one with checksums


def test_damaged_arrays_of_mnist(mini, tmp_path):
    files = mini.mnist_files()
    outcome(MNIST(), mini.write(tmp_path / "source", files), tmp_path / "root")
    for seed, (name, blob) in enumerate(files.items()):
        for part in damaged(gzip.decompress(blob), np.random.default_rng(seed)):
            mini.write(tmp_path / "source", {name: gzip.compress(part)})
            outcome(MNIST(), tmp_path / "source", tmp_path / "root")
        mini.write(tmp_path / "source", {name: blob})


def test_damaged_arrays_of_omniglot(mini, tmp_path):
    file = io.BytesIO()
    np.savez_compressed(file, images=mini.omniglot_drawings(1, 0))
    for seed in range(ROUNDS):
        for blob in damaged(file.getvalue(), np.random.default_rng(seed)):
            mini.write(tmp_path / "source", {"images_background.npz": blob, "images_evaluation.npz": blob})
            assert outcome(Omniglot(), tmp_path / "source", tmp_path / "root").startswith("error")


def test_a_damaged_set_is_never_trained_on(mini, tmp_path):
    """Whichever byte of it: when it is opened, or when the block is first read."""
    source = mini.write(tmp_path / "source", mini.cifar_pictures())
    data = ImageFolder(root=str(tmp_path), size=32)
    prepared = prepare(data, source, tmp_path)
    assert BLOCKS in prepared.manifest.checksums
    for path in prepared.folder.iterdir():
        whole = path.read_bytes()
        for seed in range(ROUNDS):
            for blob in damaged(whole, np.random.default_rng(seed)):
                path.write_bytes(blob)
                with pytest.raises(DataError), warnings.catch_warnings():
                    Prepared.open(tmp_path, data).rows("images").first()
        path.write_bytes(whole)
    assert len(Prepared.open(tmp_path, data).rows("images").first()) == 40
