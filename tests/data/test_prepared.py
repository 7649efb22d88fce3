"""All of a set or nothing: interruptions, full disks and two processes at once. Splits as ranges of mapped rows."""

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from jiio_lightning.data import DataError
from jiio_lightning.data.prepared import Manifest, Prepared, prepare
from jiio_lightning.data.recipe import Contents, Recipe
from jiio_lightning.data.rows import MappedRows

COUNT = 30


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, 4, 4), dtype=np.uint8)


class Squares(Recipe):
    """Thirty small images, one by one, with something happening at one of them."""

    title, shape, version = "squares", (3, 4, 4), 3
    where = "Name any folder."

    event = staticmethod(lambda number: None)
    count = COUNT

    def read(self, originals):
        with (originals.path / "reads.txt").open("a") as file:
            file.write("read\n")
        return Contents(
            splits={"train": 20, "val": 4, "test": 6},
            labels=np.arange(COUNT),
            images=self._images(),
            origin=lambda: {"form": "squares", "path": str(originals.path)},
        )

    def _images(self):
        for number in range(self.count):
            type(self).event(number)
            yield images()[[number % COUNT]]


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def at_image_12(monkeypatch):
    """Have something happen while image 12 is written."""

    def install(action):
        monkeypatch.setattr(Squares, "event", staticmethod(lambda number: action() if number == 12 else None))

    return install


def reads(source: Path) -> int:
    return len((source / "reads.txt").read_text().splitlines())


def assert_nothing_is_left(root: Path) -> None:
    assert {path.name for path in root.iterdir()} <= {".squares.lock"}


def test_what_is_written_is_what_was_there(source, tmp_path):
    prepared = prepare(Squares(), source, tmp_path / "root")
    assert (np.load(prepared.folder / "images.npy") == images()).all()
    assert (np.load(prepared.folder / "labels.npy") == np.arange(COUNT)).all()
    manifest = prepared.manifest
    assert manifest.recipe == {"set": "squares", "version": 3, "options": {}}
    assert manifest.splits == {"train": 20, "val": 4, "test": 6} and manifest.shape == (3, 4, 4)
    assert manifest.source["path"] == str(source) and manifest.strict
    assert set(manifest.checksums) == {"images.npy", "labels.npy", "blocks.npy"}
    prepared.verify()


def test_a_second_call_does_nothing(source, tmp_path):
    first = prepare(Squares(), source, tmp_path / "root")
    times = [path.stat().st_mtime_ns for path in first.folder.iterdir()]
    second = prepare(Squares(), source, tmp_path / "root")
    assert second == first and reads(source) == 1
    assert [path.stat().st_mtime_ns for path in first.folder.iterdir()] == times


@pytest.mark.parametrize("error", [DataError("bad"), KeyboardInterrupt(), ValueError("bug"), OSError("disk")])
def test_a_failure_leaves_nothing(source, tmp_path, at_image_12, error):
    def fail():
        raise error

    at_image_12(fail)
    with pytest.raises(DataError if isinstance(error, OSError) else type(error)):
        prepare(Squares(), source, tmp_path / "root")
    assert_nothing_is_left(tmp_path / "root")
    with pytest.raises(DataError, match="is not prepared"):
        Prepared.open(tmp_path / "root", Squares())


def test_a_killed_preparation_is_not_taken_for_a_finished_one(source, tmp_path, at_image_12, monkeypatch):
    root = tmp_path / "root"
    at_image_12(lambda: os.kill(os.getpid(), signal.SIGKILL))
    process = multiprocessing.get_context("fork").Process(target=prepare, args=(Squares(), source, root))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (root / ".squares.partial").exists()
    with pytest.raises(DataError, match="is not prepared"):
        Prepared.open(root, Squares())
    monkeypatch.undo()
    prepare(Squares(), source, root).verify()
    assert not (root / ".squares.partial").exists()


def test_two_processes_at_once_do_the_work_once(source, tmp_path, at_image_12):
    at_image_12(lambda: time.sleep(0.5))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=prepare, args=(Squares(), source, tmp_path / "root")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert reads(source) == 1
    Prepared.open(tmp_path / "root", Squares()).verify()


def test_a_disk_that_is_too_small_is_refused_before_the_work(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(DataError, match=r"squares was not prepared.*choose another --root"):
        prepare(Squares(), source, tmp_path / "root")
    assert_nothing_is_left(tmp_path / "root")


def test_a_disk_that_fills_up_while_writing(source, tmp_path):
    """The limit on a file's size makes the kernel refuse a write in the middle, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        with pytest.raises(DataError, match="squares was not prepared, nothing was kept"):
            prepare(Squares(), source, tmp_path / "root")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_is_left(tmp_path / "root")


@pytest.mark.parametrize(("count", "match"), [(COUNT - 1, "1 images are missing"), (COUNT + 2, "2 images are too many")])
def test_another_number_of_images_than_announced(source, tmp_path, monkeypatch, count, match):
    monkeypatch.setattr(Squares, "count", count)
    with pytest.raises(DataError, match=match):
        prepare(Squares(), source, tmp_path / "root")
    assert_nothing_is_left(tmp_path / "root")


def test_a_disk_that_fills_up_while_an_archive_is_unpacked(mini, source, tmp_path, monkeypatch):
    monkeypatch.setattr(Squares, "_images", lambda self: pytest.fail("it was read"))
    monkeypatch.setattr(Squares, "read", lambda self, originals: originals.names)
    archive = mini.write(source / "x.tar", {"a.txt": bytes(3000)})
    monkeypatch.setattr("jiio_lightning.data.archives.shutil.copyfileobj", full_disk)
    with pytest.raises(DataError, match="squares was not prepared, nothing was kept.*No space left"):
        prepare(Squares(), archive, tmp_path / "root")
    assert_nothing_is_left(tmp_path / "root")


def full_disk(*args, **options):
    raise OSError(28, os.strerror(28))


def test_a_missing_source_says_what_to_name(tmp_path):
    with pytest.raises(DataError, match="does not exist.*Name any folder"):
        prepare(Squares(), tmp_path / "missing", tmp_path / "root")
    with pytest.raises(DataError, match="not downloaded by this program.*jiio data prepare squares --source PATH"):
        prepare(Squares(), None, tmp_path / "root")


def test_a_flipped_byte_is_found(source, tmp_path):
    prepared = prepare(Squares(), source, tmp_path / "root")
    for path in prepared.arrays:
        whole = path.read_bytes()
        for position in (len(whole) - 1, len(whole) // 2):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(DataError, match=f"damaged: {path}"):
                prepared.verify()
        path.write_bytes(whole)
    prepared.verify()


def test_a_flipped_byte_of_the_manifest_is_found(source, tmp_path):
    path = prepare(Squares(), source, tmp_path / "root").folder / "manifest.json"
    path.write_text(path.read_text().replace('"train": 20', '"train": 21'))
    with pytest.raises(DataError, match="its checksum is wrong"):
        Prepared.open(tmp_path / "root", Squares())


def hold(path: Path, held) -> None:
    with FileLock(path):
        held.set()
        time.sleep(0.3)


def test_a_process_that_waits_says_so(source, tmp_path, caplog):
    (tmp_path / "root").mkdir()
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "root" / ".squares.lock", held))
    process.start()
    held.wait()
    prepare(Squares(), source, tmp_path / "root").verify()
    process.join()
    assert "another process is preparing this set" in caplog.text


def test_a_set_of_another_version_is_refused(source, tmp_path, monkeypatch):
    prepare(Squares(), source, tmp_path / "root")
    monkeypatch.setattr(Squares, "version", 4)
    with pytest.raises(DataError, match=r"was prepared by .*'version': 3.*asks for .*'version': 4"):
        prepare(Squares(), source, tmp_path / "root")


def test_a_shortened_array_is_found_when_it_is_opened(source, tmp_path):
    path = prepare(Squares(), source, tmp_path / "root").folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        Prepared.open(tmp_path / "root", Squares())


def test_a_pickle_in_an_array_file_is_never_loaded(source, tmp_path):
    path = prepare(Squares(), source, tmp_path / "root").folder / "labels.npy"
    np.save(path, np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is damaged"):
        Prepared.open(tmp_path / "root", Squares())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"shape": [1, 2, 3], "surprise": 1}'])
def test_a_damaged_manifest(source, tmp_path, text):
    folder = prepare(Squares(), source, tmp_path / "root").folder
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="is not a prepared set"):
        Manifest.load(folder)


@pytest.fixture
def rows(tmp_path) -> MappedRows:
    np.save(tmp_path / "x.npy", np.arange(100_000, dtype=np.int64))
    return MappedRows(tmp_path / "x.npy", 10, 90_010)


def test_rows_are_those_of_the_range(rows):
    assert len(rows) == len(rows.tensor) == 90_000
    assert rows.tensor[[0, -1]].tolist() == [10, 90_009]
    part = rows[5:20]
    assert len(part) == 15 and part.tensor.tolist() == list(range(15, 30))
    assert rows[:None].tensor.equal(rows.tensor)


def test_rows_are_mapped_and_the_file_is_safe(rows):
    before = rows.path.read_bytes()
    rows.tensor[0] = -1
    assert rows.path.read_bytes() == before


def test_rows_pickle_as_an_address(rows):
    assert rows.tensor[0] == 10
    message = pickle.dumps(rows)
    assert len(message) < 1000
    assert pickle.loads(message).tensor.equal(rows.tensor)


def test_bounds_of_splits():
    manifest = Manifest("x", {}, True, {}, (1, 2, 2), 255, {"train": 5, "val": 2, "test": 3}, {}, {}, {})
    assert [manifest.bounds(split) for split in ("train", "val", "test")] == [(0, 5), (5, 7), (7, 10)]
    with pytest.raises(DataError, match="no split 'tset'; it has train, val, test"):
        manifest.bounds("tset")


class Large(Recipe):
    """Images of which a block has two, the last block one."""

    title, shape, where = "large", (2, 256, 256), "Name any folder."

    def read(self, originals):
        images = np.random.default_rng(0).integers(0, 256, (5, *self.shape), dtype=np.uint8)
        return Contents({"train": 3, "val": 1, "test": 1}, np.arange(5), [images], lambda: {"form": "x", "path": "y"})


@pytest.fixture
def large(source, tmp_path) -> Prepared:
    return prepare(Large(), source, tmp_path / "root")


def flip(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)


def test_a_block_is_compared_when_a_row_of_it_is_first_taken(large):
    flip(large.folder / "images.npy", -1)  # of the test image, in the block of no other
    train, test = large.rows("images", "train"), large.rows("images", "test")
    assert train.take(np.array([0, 2])).shape == (2, 2, 256, 256) and train.first().shape == (3, 2, 256, 256)
    for rows in (test, large.rows("images")[2:], pickle.loads(pickle.dumps(test))):
        with pytest.raises(DataError, match=r"images.npy is damaged. Remove .*large and prepare it again"):
            rows.first()
    with pytest.raises(DataError, match="is damaged"):
        test.take(np.array([0]))
    with pytest.raises(DataError, match="is damaged"):
        test.to(torch.device("cpu"))


def test_a_block_is_compared_once(large, monkeypatch):
    rows, checked = large.rows("images", "train"), []
    monkeypatch.setattr("zlib.crc32", lambda part, real=zlib.crc32: checked.append(len(part)) or real(part))
    for _ in range(3):
        rows.take(np.array([2, 0, 1]))
    assert checked == [2, 2] and rows._unread is None


@pytest.mark.parametrize("array", ["labels", "blocks"])
def test_a_flipped_byte_of_the_labels_is_found_when_the_set_is_opened(large, array):
    flip(large.folder / f"{array}.npy", -1)
    with pytest.raises(DataError, match=f"{array}.npy is damaged"):
        Prepared.open(large.folder.parent, Large())


def test_a_set_of_before_has_no_blocks_and_loads(large):
    """Nor does it say what was named."""
    fields = asdict(large.manifest)
    del fields["checksums"]["blocks.npy"], fields["source"]["named"]
    fields["source"]["path"] = "/somewhere/x.tar"
    old = Manifest(**fields)
    (large.folder / "blocks.npy").unlink()
    (large.folder / "manifest.json").write_text(json.dumps({**asdict(old), "checksum": old.checksum}))
    opened = Prepared.open(large.folder.parent, Large())
    opened.verify()
    assert opened.rows("images", "train").take(np.array([1])).shape == (1, 2, 256, 256)
    for source in (None, Path("/somewhere"), Path("/somewhere/x.tar")):
        opened.check_source(source)
    with pytest.raises(DataError, match="was prepared from /somewhere/x.tar, not from /elsewhere"):
        opened.check_source(Path("/elsewhere"))
