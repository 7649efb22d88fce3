"""A file or a folder of results is the old one or the new one, whatever happens."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from jiio_lightning.commands.checkpoint import CheckpointFiles
from jiio_lightning.files import clear_parts, whole_file, whole_folder


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert content(tmp_path) == {"result.txt": "old"}


def test_a_kill_in_the_middle_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    child = os.fork()
    if not child:
        with whole_file(path) as part:
            part.write_text("ne")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_text() == "old" and len(content(tmp_path)) == 2
    clear_parts(tmp_path)
    assert content(tmp_path) == {"last.ckpt": "old"}


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    path, files = tmp_path / "last.ckpt", CheckpointFiles()
    files.save_checkpoint({"state_dict": {}, "global_step": 1}, path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"last.ckpt was not written \(.+\); what was there before is as it was"):
            files.save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}, "global_step": 2}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "last.ckpt").symlink_to(tmp_path / "large" / "last.ckpt")
    with whole_file(tmp_path / "last.ckpt") as part:
        part.write_text("new")
    assert (tmp_path / "last.ckpt").is_symlink() and content(tmp_path / "large") == {"last.ckpt": "new"}


@pytest.mark.parametrize("keep", [False, True])
def test_a_folder_takes_the_place_of_the_old_one(tmp_path, keep):
    folder = tmp_path / "deep" / "results"
    folder.mkdir(parents=True)
    (folder / "a").write_text("old")
    (folder / "notes").write_text("mine")
    with pytest.raises(ZeroDivisionError), whole_folder(folder, keep) as part:
        (part / "a").write_text("ne")
        raise ZeroDivisionError
    assert content(folder.parent) == {"results/a": "old", "results/notes": "mine"}
    with whole_folder(folder, keep) as part:
        (part / "a").write_text("new")
    assert content(folder.parent) == {"results/a": "new"} | ({"results/notes": "mine"} if keep else {})
