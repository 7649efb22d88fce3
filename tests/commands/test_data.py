"""``jiio data`` as a user types it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jiio_lightning.commands.data import main
from jiio_lightning.data import SETS, ImageFolder
from jiio_lightning.data.catalogue import WHERE


@pytest.fixture
def root(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("JIIO_DATA", str(tmp_path / "root"))
    return str(tmp_path / "root")


@pytest.fixture
def source(tmp_path) -> str:
    (tmp_path / "faces").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{number:02}.jpg")
    return shutil.make_archive(str(tmp_path / "faces"), "tar", tmp_path / "faces")


def test_prepare_verify_and_list(root, source, capsys):
    options = ["--name", "faces", "--train", "30", "--val", "4", "--shuffle", "false", "--source", source]
    assert main(["prepare", "images", *options]) == 0
    assert capsys.readouterr().out == f"{root}/faces: 3x64x64: 30 train, 4 val, 6 test; from images {source}; left out: nothing\n"
    assert main(["prepare", "images", *options]) == 0
    assert "was prepared already" in capsys.readouterr().out
    assert main(["prepare", "digits"]) == 0
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.endswith(f"{root}/digits: as it was prepared\n{root}/faces: as it was prepared\n")
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "faces                3x64x64: 30 train" in listed and all(f"  {title} " in listed for title in SETS)
    assert len(ImageFolder(name="faces", train=30, val=4, shuffle=False).split_images("test")) == 6


def test_the_list_without_the_sets_is_that_of_the_sets():
    assert {title: data.where for title, data in SETS.items()} == WHERE


def test_verify_finds_a_flipped_byte(root, capsys):
    main(["prepare", "digits"])
    path = f"{root}/digits/images.npy"
    array = np.load(path, mmap_mode="r+")
    array[700, 0, 3, 3] ^= 1
    array.flush()
    assert main(["verify", "digits"]) == 1
    assert f"error: damaged: {path}" in capsys.readouterr().err


def test_root_as_an_option(tmp_path, capsys):
    assert main(["prepare", "digits", "--root", str(tmp_path / "here")]) == 0
    assert main(["verify", "--root", str(tmp_path / "here")]) == 0
    assert main(["list", "--root", str(tmp_path / "nowhere")]) == 0
    assert "nothing is prepared in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "ffhq"], "ffhq is not downloaded by this program"),
        (["prepare", "mnist", "--source", "/nowhere"], "/nowhere does not exist: --source is to name the originals of mnist"),
        (["verify", "cifar10"], "no set called cifar10 is prepared in"),
        (["prepare", "images", "--name", "../x"], "name is '../x': it becomes a folder"),
    ],
)
def test_errors_are_one_line(root, capsys, arguments, message):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["prepare"], ["prepare", "mnits"], ["prepare", "celeba", "--corp", "140"], ["prepare", "ffhq", "--size", "big"]],
)
def test_misspelt_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "error:" in capsys.readouterr().err


def test_options_are_those_of_the_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "celeba", "--help"])
    text = capsys.readouterr().out
    assert all(option in text for option in ("--crop", "--size", "--strict", "--source", "--root"))
