"""MNIST from IDX files, and Digits."""

import gzip
import hashlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from jiio_lightning.data import MNIST, DataError, Digits
from jiio_lightning.data.mnist import MD5
from jiio_lightning.data.prepared import prepare

loose = partial(prepare, MNIST(), strict=False)


def test_digits_are_scikit_learns(tmp_path):
    data = Digits(root=str(tmp_path), batch_size=64)
    data.prepare_data()
    data.setup("fit")
    images = torch.cat([data.split_images(split) for split in ("train", "val", "test")])
    assert [len(data.split_images(split)) for split in ("train", "val", "test")] == [1297, 200, 300]
    original = load_digits()
    expected = torch.from_numpy(original.images).float().unsqueeze(1) / 8 - 1
    assert data.image_shape == (1, 8, 8) == tuple(images.shape[1:])
    assert sorted(map(bytes, images.numpy())) == sorted(map(bytes, expected.numpy()))  # each once, exactly
    by_image = {bytes(image): int(label) for image, label in zip(expected.numpy(), original.target, strict=True)}
    for batch in data.test_dataloader():
        assert [by_image[bytes(image)] for image in batch.image.numpy()] == batch.label.tolist()
    assert data.prepared.manifest.checksums["images.npy"].startswith("16a0334676229802")  # the split is fixed for good


def test_arrays_are_those_of_the_files(mini, tmp_path):
    files = mini.mnist_files(train=40, test=12)
    loose(mini.write(tmp_path / "source", files), tmp_path)
    data = MNIST(root=str(tmp_path), batch_size=4, value_range=(0.0, 1.0))
    assert [len(data.split_images(split)) for split in ("train", "val", "test")] == [20, 20, 12]
    raw = np.frombuffer(gzip.decompress(files["train-images-idx3-ubyte.gz"]), np.uint8, offset=16).reshape(40, 1, 28, 28)
    stored = torch.cat([data.split_images("train"), data.split_images("val")])
    assert (stored * 255).round().to(torch.uint8).equal(torch.from_numpy(raw.copy()))
    labels = np.frombuffer(gzip.decompress(files["t10k-labels-idx1-ubyte.gz"]), np.uint8, offset=8)
    assert torch.cat([batch.label for batch in data.test_dataloader()]).tolist() == labels.tolist()


def test_padding_to_32(mini, tmp_path):
    loose(mini.write(tmp_path / "source", mini.mnist_files()), tmp_path)
    data, padded = MNIST(root=str(tmp_path)), MNIST(root=str(tmp_path), pad32=True)
    assert data.image_shape == (1, 28, 28) and padded.image_shape == (1, 32, 32)
    assert padded.split_images("test")[..., 2:-2, 2:-2].equal(data.split_images("test"))


def test_files_without_gzip_and_below_a_folder(mini, tmp_path):
    files = mini.mnist_files()
    bare = {f"MNIST/raw/{name.removesuffix('.gz')}": gzip.decompress(blob) for name, blob in files.items()}
    one = loose(mini.write(tmp_path / "a", files), tmp_path / "1").manifest
    two = loose(mini.write(tmp_path / "b", bare), tmp_path / "2").manifest
    assert one.checksums == two.checksums


def damage(files: dict[str, bytes], name: str, change) -> dict[str, bytes]:
    return {**files, name: gzip.compress(change(gzip.decompress(files[name])))}


def refused(mini, tmp_path, files, match, strict=False):
    with pytest.raises(DataError, match=match):
        prepare(MNIST(), mini.write(tmp_path / "source", files), tmp_path / "root", strict)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".mnist.lock"]


def test_a_truncated_gzip(mini, tmp_path):
    files = mini.mnist_files()
    files["train-images-idx3-ubyte.gz"] = files["train-images-idx3-ubyte.gz"][:-100]
    refused(mini, tmp_path, files, r"train-images-idx3-ubyte\.gz cannot be read.*get a fresh copy")


def test_a_truncated_idx_file(mini, tmp_path):
    files = damage(mini.mnist_files(), "t10k-images-idx3-ubyte.gz", lambda blob: blob[:-1])
    refused(mini, tmp_path, files, r"t10k-images-idx3-ubyte\.gz is not a whole IDX file of bytes")


@pytest.mark.parametrize("header", [b"", b"\0\0\x08", b"PK\x03\x04", b"\0\0\x0d\x03", b"\0\0\x08\x09", b"\0\0\x08\x03\0"])
def test_not_an_idx_file(mini, tmp_path, header):
    files = mini.mnist_files() | {"t10k-labels-idx1-ubyte.gz": gzip.compress(header)}
    refused(mini, tmp_path, files, r"t10k-labels-idx1-ubyte\.gz is not a whole IDX file of bytes")


def test_a_missing_file(mini, tmp_path):
    files = mini.mnist_files()
    del files["t10k-labels-idx1-ubyte.gz"]
    refused(mini, tmp_path, files, "has no t10k-labels-idx1-ubyte.gz. Name a folder with the four")


def test_a_wrong_checksum(mini, tmp_path):
    refused(mini, tmp_path, mini.mnist_files(), rf"MD5 \w+ is not the original's {MD5['train-images-idx3-ubyte']}", strict=True)


def test_a_label_file_of_another_length(mini, tmp_path):
    files = mini.mnist_files(train=40)
    files["train-labels-idx1-ubyte.gz"] = mini.mnist_files(train=39)["train-labels-idx1-ubyte.gz"]
    refused(mini, tmp_path, files, r"images \(40, 28, 28\) and labels \(39,\) do not belong together")


def test_a_label_that_is_no_digit(mini, tmp_path):
    files = damage(mini.mnist_files(), "train-labels-idx1-ubyte.gz", lambda blob: blob[:-1] + b"\x0a")
    refused(mini, tmp_path, files, "a label is 10")


@pytest.fixture
def mirror(mini, tmp_path, monkeypatch):
    """A mirror of torchvision's on this machine, with the miniature's checksums."""
    files = mini.mnist_files()
    handler = partial(SilentHandler, directory=str(mini.write(tmp_path / "mirror", files)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    resources = [(name, hashlib.md5(blob).hexdigest()) for name, blob in files.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield tmp_path / "mirror"
    server.shutdown()
    server.server_close()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_download_by_torchvision(mirror, tmp_path):
    assert sum(loose(None, tmp_path / "root").manifest.splits.values()) == 52


def test_a_download_that_fails(mirror, tmp_path):
    damaged = mirror / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match="could not be downloaded.*jiio data prepare mnist --source PATH"):
        loose(None, tmp_path / "root")
    assert {path.name for path in (tmp_path / "root").iterdir()} == {".mnist.lock", ".downloads"}
    damaged.unlink()
    with pytest.raises(DataError, match="could not be downloaded.*404"):
        loose(None, tmp_path / "root")


@pytest.mark.parametrize("layout", ["{dots}", "{name}/{dots}", "{name}.gz", "{dots}.gz"])
def test_names_with_dots_and_what_unpackers_make(mini, tmp_path, layout):
    """7-Zip unpacks each file into a folder of its own; some browsers unpack what they load and keep its name."""
    files = mini.mnist_files()
    bare = {
        layout.format(name=name[:-3], dots=name[:-3].replace("-idx", ".idx")): gzip.decompress(blob)
        for name, blob in files.items()
    }
    one = loose(mini.write(tmp_path / "a", files), tmp_path / "1").manifest
    two = loose(mini.write(tmp_path / "b", {**bare, "Thumbs.db": b""}), tmp_path / "2").manifest
    assert one.checksums == two.checksums


@pytest.mark.parametrize("name", MD5)
def test_a_changed_byte_in_any_of_the_four_files_is_refused_when_strict(mini, tmp_path, monkeypatch, name):
    files = mini.mnist_files()
    for known in MD5:
        monkeypatch.setitem(MD5, known, hashlib.md5(gzip.decompress(files[f"{known}.gz"])).hexdigest())
    prepare(MNIST(), mini.write(tmp_path / "source", files), tmp_path / "good")
    changed = damage(files, f"{name}.gz", lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]))
    refused(mini, tmp_path, changed, f"{name}: MD5", strict=True)


def test_digits_need_no_source(tmp_path):
    with pytest.raises(DataError, match="digits needs no source: leave nowhere out"):
        Digits(root=str(tmp_path), source="nowhere").prepare_data()
