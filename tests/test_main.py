"""Which command is meant, and the help that needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from jiio_lightning import __version__
from jiio_lightning.__main__ import COMMANDS, LIGHT, OPTIONS
from jiio_lightning.cli import JIIOCLI
from tests.test_cli import error

NAMES = [name for commands in COMMANDS.values() for name in commands]


def test_every_command_is_in_the_screen():
    assert sorted(NAMES) == sorted([*JIIOCLI.subcommands(), *LIGHT])
    assert OPTIONS.keys() == JIIOCLI.subcommands().keys()


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_screen_has_a_line_for_each_command(jiio, capsys, words):
    assert jiio(*words) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", shown, re.M) for name in NAMES)
    assert len(shown.splitlines()) <= 30 and max(map(len, shown.splitlines())) <= 110


def test_the_version(jiio, capsys):
    assert jiio("--version") == 0
    assert capsys.readouterr().out == f"jiio {__version__}\n"


@pytest.mark.parametrize("command", OPTIONS)
def test_the_help_of_a_command_names_options_that_it_has(jiio, capsys, command):
    assert jiio(command, "--config", "tiny.yaml", "--help") == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= 30 and max(map(len, short.splitlines())) <= 130
    assert jiio(command, "--help-all") == 0
    options = set(re.findall(r"--[\w.]+", capsys.readouterr().out))
    # those of the injected solver, the model and the data depend on their class
    mine = {name.split()[0] for name in OPTIONS[command]}
    free = {name for name in mine if re.match(r"--(solver\.(train|test)|model|data)\.", name)}
    assert mine - free <= options and all(name in short for name in mine)


def test_the_options_of_classes_are_there(jiio):
    """Those that the help of no command can show."""
    free = ("--solver.train.max_steps", "--solver.test.max_steps", "--data.batch_size", "--data.test_limit")
    words = [f"{name}=3" for name in (*free, "--model.learning_rate")]
    assert jiio("fit", "--config", "tiny.yaml", *words, "--print_config") == 0


@pytest.mark.parametrize("words", [(), ("--version",), ("fit", "--help"), ("data", "list"), ("runs",)], ids=" ".join)
def test_it_is_answered_without_torch(tmp_path, words):
    """Torch takes two seconds to import, Lightning five."""
    program = f"import sys; from jiio_lightning.__main__ import main; assert main({list(words)}) == 0; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not {"torch", "pytorch_lightning", "torchvision", "matplotlib"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fitt",), "there is no command 'fitt': did you mean fit?"),
        (("zzz",), "there is no command 'zzz': fit, validate, test"),
        (("fit", "--trainer.max_steps", 3), "jiio fit needs a run file: --config tasks/digits.yaml"),
    ],
    ids=["near", "far", "bare"],
)
def test_a_command_that_cannot_be_run(jiio, capsys, words, said):
    assert jiio(*words) == 2
    assert said in error(capsys)


@pytest.mark.parametrize(
    ("word", "now"),
    [
        ("front", "jiio compare --solvers"),
        ("reproduce", "python -m experiments"),
        ("bench", "python -m experiments"),
        ("data bench", "python -m experiments loader"),
    ],
)
def test_a_command_of_before_names_the_new_one(jiio, capsys, word, now):
    assert jiio(*word.split(), "--help") == 2
    message = error(capsys)
    assert f"`jiio {word}` is now `{now}" in message and len(message.splitlines()) == 1
