"""Folders as users have them: links, hidden files, what systems add, what cannot be read. Each is used, counted or an error."""

import os

import pytest

from jiio_lightning.data import DataError, ImageFolder
from jiio_lightning.data.found import walk
from jiio_lightning.data.originals import Originals
from jiio_lightning.data.prepared import prepare


@pytest.fixture
def faces(mini, tmp_path):
    """Two classes of four images."""
    return mini.write(
        tmp_path / "source", {f"{kind}/{i}.png": mini.picture(i, 8, 8) for kind in ("cat", "dog") for i in range(4)}
    )


def summary(source, root, **options) -> str:
    return prepare(ImageFolder(size=8, **options), source, root).manifest.summary


def test_a_class_folder_that_is_a_link_has_its_images(faces, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    os.rename(faces / "dog", tmp_path / "elsewhere" / "dog")
    (faces / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (faces / "cat" / "9.png").symlink_to(faces / "cat" / "0.png")
    assert summary(faces, tmp_path / "root").startswith("3x8x8: 8 train, 1 test")
    (faces / "dog" / "back").symlink_to(faces)
    assert walk(faces).counts == {"a link to a folder above it": 1}
    assert len(walk(faces).files) == 9


def test_a_link_that_leads_nowhere_is_an_error(faces, tmp_path):
    (faces / "emu").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="emu is a link that leads nowhere: mend or remove it"):
        summary(faces, tmp_path / "root")


def test_a_folder_that_cannot_be_read_is_an_error(faces, tmp_path, monkeypatch):
    """By the call that is refused: root, as which tests may run, may read everything."""

    def scandir(path, real=os.scandir):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"dog cannot be read \(.*Permission denied"):
        summary(faces, tmp_path / "root")


def test_what_is_left_out_is_counted(mini, faces, tmp_path):
    """Copies of images in hidden folders and in those of systems are no classes, and in no split."""
    copies = [
        ".ipynb_checkpoints/0-checkpoint.png",
        "cat/.thumbnails/0.png",
        "dog/@eaDir/SYNOPHOTO_THUMB.jpg",
        "__MACOSX/cat/0.png",
    ]
    files = dict.fromkeys(
        [*copies, "dog/Thumbs.db", "cat/desktop.ini", ".DS_Store", "readme.txt", "dog/notes.TXT", "LICENSE"], b""
    )
    mini.write(faces, files)
    (faces / "empty").mkdir()
    os.mkfifo(faces / "pipe.png")
    line = summary(faces, tmp_path / "root")
    assert line.startswith("3x8x8: 7 train, 1 test; from images")
    counts = ".txt files (2), folders without images (1), hidden (3), neither a file nor a folder (1), of the system (4)"
    assert line.endswith(f"; left out: {counts}, other files (1)")


def test_a_folder_of_one_archive_beside_what_systems_add(mini, tmp_path):
    mini.write(tmp_path / "source" / "x.zip", {"a.png": b""})
    mini.write(tmp_path / "source", {".DS_Store": b"", "Thumbs.db": b""})
    assert Originals(tmp_path / "source", tmp_path).path.name == "x.zip"


@pytest.mark.parametrize("source", ["b", "nowhere"])
def test_a_source_of_which_the_set_was_not_made_is_refused(mini, faces, tmp_path, source):
    mini.write(tmp_path / "b", {"1.png": mini.picture(1, 8, 8)})
    data = ImageFolder(root=str(tmp_path), size=8, source=str(faces))
    data.prepare_data()
    data.source = str(tmp_path / source)
    with pytest.raises(DataError, match=f"was prepared from {faces}, not from .*{source}. To use it as it is, give no source"):
        data.prepare_data()
    data.source = None
    data.prepare_data()
    os.rename(faces, tmp_path / "gone")  # the originals may go
    data.source = str(faces)
    data.prepare_data()


def test_by_folder_without_classes(mini, tmp_path):
    """The splits are no classes; where some images lie in classes and others do not, nothing can be right."""
    files = {f"{split}/{i}.png": mini.picture(i, 8, 8) for split in ("train", "val", "test") for i in range(2)}
    source = mini.write(tmp_path / "source", files)
    manifest = prepare(ImageFolder(size=8, by_folder=True), source, tmp_path / "root").manifest
    assert manifest.notes["classes"] == [] and manifest.splits == {"train": 2, "val": 2, "test": 2}
    mini.write(source, {"train/cat/1.png": mini.picture(1, 8, 8)})
    with pytest.raises(DataError, match="by_folder: test/0.png lies in no class, other images do"):
        summary(source, tmp_path / "other", by_folder=True)
