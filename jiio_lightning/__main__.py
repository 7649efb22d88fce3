"""The command ``jiio``, also ``python -m jiio_lightning``: which command is meant, and the help that needs no torch."""

import contextlib
import signal
import sys
from difflib import get_close_matches
from importlib import import_module

from jiio_lightning import __version__

COMMANDS = {
    "train and evaluate": {
        "fit": "train what a run file describes, or go on with a run",
        "validate": "measure a trained net on the validation samples",
        "test": "measure a trained net on the test samples",
        "predict": "solve for test samples, or your own, and write the results",
    },
    "after training": {
        "compare": "feasible cost against time: the run file's solver and others",
        "attack": "attack a classifier and draw what was found",
        "sample": "draw new images from a density of the latents",
        "learn_start": "learn where the solves of a trained net begin",
    },
    "data and results": {
        "runs": "list the run files that come with the package, copy one to edit it",
        "data": "prepare, verify and list data sets",
        "dashboard": "write a Weights & Biases dashboard",
    },
    "help": {
        "doctor": "check versions, devices, disk and a solve on each device",
    },
}
"""Every command, in a line."""

LIGHT = ("runs", "data", "dashboard", "doctor")
"""Commands of a parser of their own, each a module with ``main``; the others are Lightning's, and take run files."""

MOVED = {
    "front": "jiio compare --solvers ...",
    "reproduce": "python -m experiments TABLE --budget ...",
    "bench": "python -m experiments overhead (or frontier)",
    "data bench": "python -m experiments loader NAME",
}
"""Commands of before, and what does their work now."""

CKPT = "weights: a file, last, best, or none for a fresh net; the run's own last ones unless given"
COMMON = {
    "--config FILE": "a run file, such as tasks/digits.yaml (`jiio runs`); a second one changes the first",
    "--name NAME": "of the run, whose folder is runs/NAME; that of the run file unless given",
    "--data.batch_size N": "samples in a batch",
    "--trainer FILE": "the machine, such as conf/trainer/gpu.yaml",
    "--trainer.default_root_dir FOLDER": "where everything is written",
}
SOLVER = {
    "--solver FILE": "the inner solver, such as conf/solver/nested.yaml",
    "--solver.test.max_steps N": "its steps in evaluation",
}
OPTIONS = {
    "fit": {
        **COMMON,
        "--overwrite": "replace the run that the folder holds",
        "--ckpt_path FILE": "go on with this checkpoint",
        "--model.learning_rate RATE": "of the optimiser",
        "--solver FILE": SOLVER["--solver FILE"],
        "--solver.train.max_steps N": "its steps in training",
        "--trainer.max_steps N": "optimiser steps of the run",
        "--trainer.logger FILE": "such as conf/logger/wandb.yaml",
        "--trainer.fast_dev_run true": "try one batch and write nothing",
        "--seed_everything N": "the seed",
    },
    "validate": {**COMMON, "--ckpt_path FILE": CKPT, **SOLVER, "--trainer.limit_val_batches N": "only so many batches"},
    "test": {
        **COMMON,
        "--ckpt_path FILE": CKPT,
        **SOLVER,
        "--data.test_limit N": "only so many samples",
        "--trainer.logger FILE": "such as conf/logger/wandb.yaml",
    },
    "predict": {**COMMON, "--ckpt_path FILE": CKPT, **SOLVER, "--data FILE": "other data, such as conf/data/fewshot_folder.yaml"},
    "compare": {
        **COMMON,
        "--ckpt_path FILE": CKPT,
        "--solver FILE": SOLVER["--solver FILE"],
        "--solvers FILE": "contenders, such as conf/compare/adam.yaml; Nested with three step sizes unless given",
        "--budgets [N,...]": "steps of the run file's solver, each a solve of its own",
        "--samples N": "test samples in a batch",
        "--batches N": "over which costs and seconds are averaged",
        "--repeats N": "rounds of timing, of which the medians count",
    },
    "attack": {
        **COMMON,
        "--ckpt_path FILE": CKPT,
        **SOLVER,
        "--attack NAME,...": "pgd, pgd_strong, jiio, autoattack, intermediate",
        "--eps EPS": "radius of the ball; the run file's unless given",
        "--n N": "how many test images; all unless given",
        "--save_set true": "write the attacked images as arrays too",
    },
    "sample": {
        **COMMON,
        "--ckpt_path FILE": CKPT,
        **SOLVER,
        "--n N": "images to make",
        "--density NAME": "gmm, vae_gmm or prior",
        "--latents N": "training images whose latents the density is fitted to",
        "--out FOLDER": "samples in the run's folder unless given",
    },
    "learn_start": {
        **COMMON,
        "--ckpt_path FILE": "weights; the run's own last ones unless given",
        **SOLVER,
        "--samples N": "training samples to solve",
        "--held_out N": "test samples on which the costs with and without the start are measured",
        "--out FILE": "the new checkpoint; NAME_started.ckpt beside NAME.ckpt unless given",
    },
}
"""What people use first, of hundreds."""


def screen() -> str:
    """Every command in a line, by groups."""
    width = max(len(name) for commands in COMMANDS.values() for name in commands)
    groups = [f"{group}\n{_table(commands, width)}" for group, commands in COMMANDS.items()]
    return "\n\n".join(
        [
            "usage: jiio COMMAND ...\n\nJoint inference and input optimisation in deep equilibrium models.",
            *groups,
            "First: jiio fit --config tasks/digits.yaml. Each command has --help; jiio --version says which this is.",
        ]
    )


def first_options(command: str) -> str:
    """What one of Lightning's commands does, and the options that people use first."""
    line = next(commands[command] for commands in COMMANDS.values() if command in commands)
    return (
        f"usage: jiio {command} --config FILE [--OPTION VALUE ...]\n\n{line[0].upper()}{line[1:]}.\n\n"
        f"{_table(OPTIONS[command])}\n\n"
        "Every setting of a run file is an option too: --print_config shows them with their values, --help-all explains all\n"
        "options, --model.help CLASS those of a class. --allow MODULE lets run files name classes of your own."
    )


def _table(lines: dict[str, str], width: int = 0) -> str:
    width = width or max(map(len, lines))
    return "\n".join(f"  {name:{width}}  {line}" for name, line in lines.items())


def main(args: list[str] | None = None) -> int:
    """Run ``jiio ARGS``; returns the exit status."""
    given = sys.argv[1:] if args is None else args
    command, names = given[0] if given else "--help", [name for commands in COMMANDS.values() for name in commands]
    for old in MOVED.keys() & {command, " ".join(given[:2])}:
        print(f"error: `jiio {old}` is now `{MOVED[old]}`", file=sys.stderr)
        return 2
    if command in ("-h", "--help"):
        print(screen())
        return 0
    if command == "--version":
        print(f"jiio {__version__}")
        return 0
    if command in LIGHT:
        with contextlib.suppress(AttributeError, ValueError):  # Windows, a thread
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `jiio runs | head` ends without a word
        return import_module(f"jiio_lightning.commands.{command}").main(given[1:])
    if command in OPTIONS and {"-h", "--help"} & set(given):
        print(first_options(command))
        return 0
    if not command.startswith("-") and command not in names:
        near = get_close_matches(command, names, n=1)
        print(
            f"error: there is no command {command!r}: {f'did you mean {near[0]}?' if near else ', '.join(names)}", file=sys.stderr
        )
        return 2
    if command in OPTIONS and not any(
        word.startswith(("--config", "-c", "--model", "--print_config", "--help-all")) for word in given
    ):
        print(f"error: jiio {command} needs a run file: --config tasks/digits.yaml (`jiio runs` lists them)", file=sys.stderr)
        return 2
    from jiio_lightning.cli import main as lightning

    return lightning(["--help" if word == "--help-all" else word for word in given])


if __name__ == "__main__":
    sys.exit(main())
