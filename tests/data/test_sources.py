"""Folders and archives: the same files from each, and nothing from a damaged or hostile one."""

import tarfile

import pytest
from jiio_lightning.data.sources import FolderSource, is_image, locate, open_source

from jiio_lightning.data import DataError

FILES = {"b/2.txt": b"two" * 400, "a/1.txt": b"one", "3.txt": b""}
FORMS = ("folder", "x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_files(mini, tmp_path, form):
    source = open_source(mini.write(tmp_path / form, FILES))
    assert sorted(source.names()) == sorted(FILES)
    assert dict(source.read(source.names())) == FILES
    assert dict(source.read(["a/1.txt"])) == {"a/1.txt": b"one"}
    assert source.get("b/2.txt") == FILES["b/2.txt"]


@pytest.mark.parametrize("form", FORMS)
def test_checksum_follows_the_contents(mini, tmp_path, form):
    def checksum(folder: str, files: dict[str, bytes]) -> str:
        source = open_source(mini.write(tmp_path / folder / form, files))
        list(source.read(source.names()))
        return source.checksum()

    changed = {**FILES, "a/1.txt": b"onf"}
    assert checksum("one", FILES) != checksum("two", changed)
    if form == "folder":  # an archive also has times of change
        assert checksum("three", FILES) == checksum("four", FILES)


def test_a_folder_with_one_archive_stands_for_it(mini, tmp_path):
    mini.write(tmp_path / "x.tar", FILES)
    assert open_source(tmp_path).path == tmp_path / "x.tar"
    (tmp_path / "readme.txt").write_text("")
    assert isinstance(open_source(tmp_path), FolderSource)


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("form", ["x.zip", "x.tar"])
def test_a_path_that_leaves_the_folder_condemns_the_archive(mini, tmp_path, form, name):
    source = open_source(mini.write(tmp_path / form, {**FILES, name: b"evil"}))
    with pytest.raises(DataError, match="leaves its folder"):
        source.names()


def test_links_in_a_tar_are_not_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    source = open_source(tmp_path / "x.tar")
    assert source.names() == []
    assert list(source.read(["link.txt"])) == []


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_truncated_archive_is_one_clear_error(mini, tmp_path, form, share):
    path = mini.write(tmp_path / form, {f"{i}.txt": bytes(range(256)) * 8 for i in range(20)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cannot be read.*get a fresh copy"):
        list(open_source(path).read(open_source(path).names()))


def test_a_tar_cut_between_two_members_is_an_error(mini, tmp_path):
    path = mini.write(tmp_path / "x.tar", {f"{i}.txt": b"x" * 512 for i in range(4)})
    path.write_bytes(path.read_bytes()[: 2 * 1024])
    with pytest.raises(DataError, match="its end is missing"):
        open_source(path).names()


def test_a_zip_with_a_flipped_bit_is_an_error(mini, tmp_path):
    path = mini.write(tmp_path / "x.zip", FILES)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"twotwo")] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="cannot be read"):
        list(open_source(path).read(FILES))


def test_what_is_neither_folder_nor_archive(tmp_path):
    (tmp_path / "x.7z").write_bytes(b"7z")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        open_source(tmp_path / "x.7z")
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "missing")


def test_hidden_files_are_no_images():
    assert is_image("a/b.JPG") and is_image("b.png")
    assert not is_image("a/._b.jpg") and not is_image("b.txt")


def test_locate_takes_the_first_that_exists(tmp_path):
    (tmp_path / "b").mkdir()
    assert locate(tmp_path, "a", "b") == tmp_path / "b"
    assert locate(tmp_path, "a") is None
