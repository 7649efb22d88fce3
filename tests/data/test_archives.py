"""Archives as other systems write them give what the same folder unpacked gives: labels, images and counts."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from jiio_lightning.commands.data import main
from jiio_lightning.data import CIFAR10, FFHQ, MNIST, CelebA, DataError, ImageFolder, omniglot
from jiio_lightning.data.originals import Limits, Originals
from jiio_lightning.data.prepared import prepare
from jiio_lightning.data.recipe import Recipe

FORK = b"\0\5\x16\7" + bytes(80)  # of an AppleDouble file


def windows_zip(path, files):
    """Backslashes, from DOS, with members for the folders and what Explorer leaves."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            archive.writestr(_dos(folder + "/"), b"")
            archive.writestr(_dos(folder + "/Thumbs.db"), b"thumbs")
        for name, blob in files.items():
            archive.writestr(_dos(name), blob)


def _dos(name):
    member = zipfile.ZipInfo("x")
    member.filename, member.create_system = name.replace("/", "\\"), 0
    return member


def macos_zip(path, files):
    """Resource forks and .DS_Store, below one more folder, names in UTF-8 without saying so."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("données/.DS_Store", b"store")
        for name, blob in files.items():
            folder, _, base = f"données/{name}".rpartition("/")
            archive.writestr(f"{folder}/{base}", blob)
            archive.writestr(f"__MACOSX/{folder}/._{base}", FORK)
    whole = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = whole.find(signature)
        while place >= 0:
            whole[place + flags + 1] &= ~0x08
            place = whole.find(signature, place + 4)
    path.write_bytes(whole)


def appended_zip(path, files):
    """Each member was there before with other contents, as after ``zip`` on an archive written by another tool."""
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        for contents in (dict.fromkeys(files, b"old"), files):
            for name, blob in contents.items():
                archive.writestr(name, blob)


def linked_tar(path, files):
    """GNU tar writes a file that has two names once; here every image also has been moved and linked to."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for number, (name, blob) in enumerate(files.items()):
            _tar(archive, f"./pool/{number}", blob)
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname = (tarfile.LNKTYPE, f"./pool/{number}")
            if number % 2:
                link.type, link.linkname = tarfile.SYMTYPE, "../" * name.count("/") + f"pool/{number}"
            archive.addfile(link)


def old_tar(path, files):
    """Names in Latin-1, of the first tar's format, appended to: the last member counts."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        for contents in (dict.fromkeys(files, b"old"), files):
            for name, blob in contents.items():
                _tar(archive, f"été/{name}", blob)


def _tar(archive, name, blob):
    member = tarfile.TarInfo(name)
    member.size = len(blob)
    archive.addfile(member, io.BytesIO(blob))


WRITERS = {"w.zip": windows_zip, "m.zip": macos_zip, "a.zip": appended_zip, "l.tar.gz": linked_tar, "o.tar": old_tar}


def celeba_files(mini):
    lines = "image_id,partition\n" + "".join(f"{i:06}.jpg,{i % 3}\n" for i in range(1, 7))
    return {**mini.celeba_pictures(6), "list_eval_partition.csv": lines.encode()}


SETS = {
    "images": (ImageFolder(size=8), lambda mini: {f"{'ab'[i % 2]}/{i}.png": mini.picture(i, 8, 8) for i in range(12)}),
    "cifar": (CIFAR10(), lambda mini: mini.cifar_pictures(1, 1)),
    "cifar_binary": (CIFAR10(), lambda mini: mini.cifar_binary(1)),
    "mnist": (MNIST(), lambda mini: mini.mnist_files(8, 4)),
    "celeba": (CelebA(), celeba_files),
    "ffhq": (FFHQ(size=8), lambda mini: {f"00000/{i:05}.png": mini.picture(i, 8, 8) for i in range(14)}),
}


def arrays(recipe: Recipe, source, root) -> tuple[dict, dict]:
    manifest = prepare(recipe, source, root, strict=False).manifest
    return manifest.checksums, manifest.splits


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", SETS)
def test_an_archive_of_another_system_is_the_folder_unpacked(mini, tmp_path, name, writer):
    recipe, files = SETS[name][0], SETS[name][1](mini)
    WRITERS[writer](tmp_path / writer, files)
    unpacked = mini.write(tmp_path / "folder", files)
    assert arrays(recipe, tmp_path / writer, tmp_path / "1") == arrays(recipe, unpacked, tmp_path / "2")


@pytest.mark.parametrize("writer", WRITERS)
def test_omniglot_of_another_system(mini, tmp_path, writer):
    part = f"images_background{writer[1:]}"
    files = mini.omniglot_pictures("images_background", mini.omniglot_drawings(2, 0))
    WRITERS[writer](tmp_path / part, files)
    found, unpacked = (
        [character for character in omniglot.read_characters(Originals(source, tmp_path))]
        for source in (tmp_path / part, mini.write(tmp_path / "folder", files))
    )
    assert np.array_equal(found, unpacked) and len(found) == 2


@pytest.fixture
def read(tmp_path):
    """What a zip or tar of some members is read as."""

    def read(name: str, limit: float = 1e9) -> Originals:
        return Originals(tmp_path / name, tmp_path, limits=Limits(gigabytes=limit / 1e9))

    return read


def test_names_in_every_encoding(tmp_path, read):
    """Said to be UTF-8, not said, in an extra field of Info-ZIP, of DOS."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("猫/1.png", b"")
        member = zipfile.ZipInfo("dog/2.png")
        member.extra = b"\x75\x70\x0c\x00\x01" + zlib.crc32(b"dog/2.png").to_bytes(4, "little") + "狗.png".encode()
        archive.writestr(member, b"")
        archive.writestr("un.png", b"")
        archive.writestr("deux.png", b"")
    whole = (tmp_path / "x.zip").read_bytes().replace(b"un.png", b"\x82n.png").replace(b"deux.png", "é.jpeg".encode() + b".")
    (tmp_path / "x.zip").write_bytes(whole)
    assert set(read("x.zip").names) == {"猫/1.png", "狗.png", "én.png", "é.jpeg."}


def test_of_two_members_of_one_name_the_last_counts(tmp_path, read):
    """A file after a link, a link after a file, a file after a file."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("a", "b", "a", "c", "b", "c"):
            if name == "b" and "b" in archive.getnames() or name == "a" and "a" not in archive.getnames():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, "c"
                archive.addfile(link)
            else:
                _tar(archive, name, f"{name} {len(archive.getnames())}".encode())
    found = read("x.tar")
    assert {name: found.read(name) for name in found.names} == {"a": b"a 2", "b": b"c 5", "c": b"c 5"}
    assert found.found.counts == {"replaced by a later member": 3}


def test_a_link_to_a_folder_in_an_archive_is_one_line(tmp_path, read):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.png", b"")
        link = zipfile.ZipInfo("b")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"a")
    with pytest.raises(DataError, match=r"has a link to a folder \(b\): unpack it and name the folder"):
        read("x.zip").names  # noqa: B018


@pytest.mark.parametrize("name", ["C:\\evil.png", "\\\\host\\evil.png", "/evil.png", "a\\..\\..\\evil.png"])
def test_a_name_that_leaves_the_folder_on_windows(tmp_path, read, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(_dos(name), b"")
    with pytest.raises(DataError, match="leaves its folder"):
        read("x.zip").names  # noqa: B018


def test_a_way_of_packing_that_is_not_known(tmp_path, read):
    """Explorer packs large files by Deflate64."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"contents")
    whole = bytearray((tmp_path / "x.zip").read_bytes())
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        whole[whole.index(signature) + method] = 9
    (tmp_path / "x.zip").write_bytes(whole)
    with pytest.raises(DataError, match="is packed in an unknown way.*compression.*: unpack it and name the folder"):
        read("x.zip").names  # noqa: B018


@pytest.mark.parametrize("place", range(-8, 0))
def test_a_flipped_bit_in_the_checksum_at_the_end_of_a_tar_gz(mini, tmp_path, read, place):
    whole = bytearray(mini.write(tmp_path / "x.tar.gz", {"a.png": b"contents"}).read_bytes())
    whole[place] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(whole)
    with pytest.raises(DataError, match="cannot be read"):
        read("x.tar.gz").names  # noqa: B018


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
def test_an_archive_that_unpacks_to_more_than_it_may(mini, tmp_path, read, name):
    mini.write(tmp_path / name, {f"{i}.png": bytes(40_000) for i in range(9)})
    assert len(read(name, limit=450_000).names) == 9
    with pytest.raises(DataError, match=r"unpacks to more than 0.0001 GB.*--max_gb"):
        read(name, limit=100_000).names  # noqa: B018
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.name.isdecimal()) <= 460_000


def test_a_header_or_a_tail_of_gigabytes(tmp_path, read):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        header = tarfile.TarInfo("long")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 25
        archive.addfile(header, io.BytesIO(bytes(1 << 25)))
    with pytest.raises(DataError, match="a header of 33,554,432 bytes"):
        read("x.tar.gz").names  # noqa: B018
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(bytes(1 << 21)))
    with pytest.raises(DataError, match="unpacks to more than"):
        read("y.tar.gz", limit=1 << 20).names  # noqa: B018


def test_a_gzipped_array_that_is_larger_than_mnist(mini, tmp_path):
    files = mini.mnist_files() | {"train-images-idx3-ubyte.gz": gzip.compress(bytes(61_000_000), 1)}
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz unpacks to more than 0.06 GB.*--max_gb"):
        prepare(MNIST(), mini.write(tmp_path / "source", files), tmp_path / "root")


def test_images_of_more_pixels_than_allowed(mini, tmp_path):
    source = mini.write(tmp_path / "source", {"1.png": mini.picture(0, 2000, 600)})
    with pytest.raises(DataError, match=r"it has 2000x600 pixels, the limit is 1 million \(which --max_megapixels"):
        prepare(ImageFolder(size=8), source, tmp_path / "root", limits=Limits(megapixels=1))
    prepare(ImageFolder(size=8), source, tmp_path / "root", limits=Limits(megapixels=1.2))


def test_names_without_utf_8_in_a_folder(mini, tmp_path, capsys):
    """The checksum, the manifest and the line on the screen can hold them."""
    source = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(source)
    for number in range(3):
        with open(os.fsencode(source) + b"/%d\xff.png" % number, "wb") as file:
            file.write(mini.picture(number, 64, 64))
    assert main(["prepare", "images", "--source", source, "--root", str(tmp_path / "root")]) == 0
    assert capsys.readouterr().out.endswith("caf\\xe9; left out: nothing\n")
