"""Folders and archives: the same files from each, and nothing from a damaged or hostile one."""

import os
import tarfile

import pytest

from jiio_lightning.data import DataError
from jiio_lightning.data.errors import reading
from jiio_lightning.data.originals import Originals

FILES = {"b/2.txt": b"two" * 400, "a/1.txt": b"one", "3.txt": b""}
FORMS = ("folder", "x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2")


@pytest.fixture
def originals(mini, tmp_path):
    """Originals of some files in some form, and where they are unpacked."""
    (tmp_path / "scratch").mkdir()

    def write(form, files=FILES, folder="source"):
        return Originals(mini.write(tmp_path / folder / form, files), tmp_path / "scratch")

    return write


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_files(originals, form):
    found = originals(form)
    assert found.names == sorted(FILES)
    assert {name: found.read(name) for name in found.names} == FILES


@pytest.mark.parametrize("form", FORMS)
def test_checksum_follows_the_contents(originals, form):
    def checksum(folder: str, files: dict[str, bytes]) -> str:
        found = originals(form, files, folder)
        for name in found.names:
            found.read(name)
        return found.origin("x")["sha256"]

    changed = {**FILES, "a/1.txt": b"onf"}
    assert checksum("one", FILES) != checksum("two", changed)
    if form == "folder":  # an archive also has times of change
        assert checksum("three", FILES) == checksum("four", FILES)


def test_a_folder_with_one_archive_stands_for_it(originals, tmp_path):
    originals("x.tar")
    assert Originals(tmp_path / "source", tmp_path).path == tmp_path / "source" / "x.tar"
    (tmp_path / "source" / "readme.txt").write_text("")
    assert Originals(tmp_path / "source", tmp_path).path == tmp_path / "source"


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("form", ["x.zip", "x.tar"])
def test_a_path_that_leaves_the_folder_condemns_the_archive(originals, tmp_path, form, name):
    with pytest.raises(DataError, match="leaves its folder"):
        originals(form, {**FILES, name: b"evil"}).names  # noqa: B018
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_not_followed(tmp_path, kind):
    """Neither a link to a file outside nor a file below a link to a folder outside."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "scratch").mkdir()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, target in (("link.txt", tmp_path / "secret.txt"), ("folder", tmp_path)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, str(target)
            archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder/inside.txt"))
    found = Originals(tmp_path / "x.tar", tmp_path / "scratch")
    assert found.names == ["folder/inside.txt"]
    assert found.found.counts == {"links to no file of the archive": 2} and not (tmp_path / "inside.txt").exists()


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_truncated_archive_is_one_clear_error(originals, form, share):
    found = originals(form, {f"{i}.txt": bytes(range(256)) * 8 for i in range(20)})
    whole = found.path.read_bytes()
    found.path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cannot be read.*get a fresh copy"):
        found.names  # noqa: B018


def test_a_tar_cut_between_two_members_is_an_error(originals):
    found = originals("x.tar", {f"{i}.txt": b"x" * 512 for i in range(4)})
    found.path.write_bytes(found.path.read_bytes()[: 2 * 1024])
    with pytest.raises(DataError, match="its end is missing"):
        found.names  # noqa: B018


def test_a_zip_with_a_flipped_bit_is_an_error(originals):
    found = originals("x.zip")
    whole = bytearray(found.path.read_bytes())
    whole[whole.index(b"twotwo")] ^= 1
    found.path.write_bytes(whole)
    with pytest.raises(DataError, match="cannot be read"):
        found.names  # noqa: B018


def test_an_encrypted_zip_is_an_error(originals):
    found = originals("x.zip")
    whole = bytearray(found.path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(signature) + flags] |= 1
    found.path.write_bytes(whole)
    with pytest.raises(DataError, match="has encrypted members: unpack it with its password"):
        found.names  # noqa: B018


def test_a_full_disk_is_no_damaged_archive(tmp_path):
    with pytest.raises(OSError, match="No space left"), reading(tmp_path / "x.tar"):
        raise OSError(28, os.strerror(28))


def test_what_is_neither_folder_nor_archive(tmp_path):
    (tmp_path / "x.7z").write_bytes(b"7z")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        Originals(tmp_path / "x.7z", tmp_path).names  # noqa: B018


def test_hidden_files_are_no_images(originals):
    assert originals("folder", dict.fromkeys(["a/b.JPG", "b.png", "a/._b.jpg", "b.txt"], b"")).images == ["a/b.JPG", "b.png"]


def test_the_first_place_that_exists(originals, tmp_path):
    found = originals("folder", {"b/x.txt": b""})
    assert found.inside("a", "b").path == found.path / "b" and found.inside("a") is None
