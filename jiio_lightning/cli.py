"""The command ``jiio``: the only place where configuration meets code."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization, StepProgress
from jiio_lightning.commands.checkpoint import read_checkpoint
from jiio_lightning.commands.dashboard import main as dashboard_main
from jiio_lightning.commands.data import main as data_main
from jiio_lightning.commands.trainer import JIIOTrainer
from jiio_lightning.core.inner import SolveError
from jiio_lightning.data import DataError
from jiio_lightning.fragments import whole_fragments
from jiio_lightning.noise import quieten

DESCRIPTION = """Train and evaluate tasks. Further commands: `jiio data` prepares data sets, `jiio dashboard` makes a
Weights & Biases workspace; each has --help."""

MOVED = {
    "front": "jiio compare --solvers ...",
    "reproduce": "python -m experiments TABLE --budget ...",
    "bench": "python -m experiments overhead (or frontier)",
}
"""Commands of before, and what does their work now."""

DEBUG = "JIIO_DEBUG"
"""Environment variable: with it an error shows its traceback."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole configuration beside a run's logs, ``fit_config.yaml``; a second run in the same folder replaces it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_none=False)
        (folder / f"{TrainerFn(stage).value}_config.yaml").write_text(text)


class Parser(LightningArgumentParser):
    """Says what is wrong with a command in a line or two; the hundreds of options are for ``--help``."""

    def print_usage(self, file: TextIO | None = None) -> None:
        """Nothing: jsonargparse prints all options above each error."""

    def add_method_arguments(self, theclass: type, themethod: str, *args: Any, **kwargs: Any) -> list[str]:
        """As in jsonargparse, and a command's argument may be the path of a fragment (--baseline conf/baseline/adam.yaml)."""
        return super().add_method_arguments(theclass, themethod, *args, **{**kwargs, "sub_configs": True})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(_short(message) if self.exit_on_error else message, ex)


class JIIOCLI(LightningCLI):
    """LightningCLI with the two injected callbacks as top-level keys and the trainer's own commands."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(AugmentedDEQSolver, "solver")
        parser.add_lightning_class_args(JacobianRegularization, "jacobian")
        parser.set_defaults(
            {
                "trainer.inference_mode": False,  # the inner solve needs gradients in evaluation too
                "trainer.use_distributed_sampler": False,  # the data modules deal out samples to the ranks themselves
            }
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands, and the trainer's own."""
        own = ("compare", "front", "attack", "sample", "learn_start")
        return LightningCLI.subcommands() | {name: {"model", "datamodule"} for name in own}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and look at the checkpoint before any work begins."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and Path(path).suffix:  # else one of Lightning's words: best, last, hpc
            read_checkpoint(Path(path))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer whose progress bar counts optimiser steps, unless the run file brings its own or wants none."""
        given = self.config_init[self.subcommand].trainer
        callbacks = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] if given.callbacks else []
        if given.enable_progress_bar is not False and not any(isinstance(item, ProgressBar) for item in callbacks):
            kwargs["callbacks"] = [*callbacks, StepProgress()]
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say where the weights are."""
        path = getattr(self.trainer.checkpoint_callback, "last_model_path", "")
        if path and self.trainer.is_global_zero:
            print(f"checkpoint: {os.path.relpath(path)}")


def run(args: list[str] | None = None) -> JIIOCLI:
    """Execute a command of the application and return it with its trainer, model and data. Raises what goes wrong."""
    quieten()
    return JIIOCLI(
        trainer_class=JIIOTrainer,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"prog": "jiio", "description": DESCRIPTION},
        args=whole_fragments(sys.argv[1:] if args is None else args),
    )


def main(args: list[str] | None = None) -> int:
    """Run ``jiio ARGS``; returns the exit status. A user's mistake is one line on stderr."""
    given = sys.argv[1:] if args is None else args
    own = {"data": data_main, "dashboard": dashboard_main}
    if given and given[0] in own:
        return own[given[0]](given[1:])
    if given and given[0] in MOVED and given[0] != "front":
        print(f"error: `jiio {given[0]}` is now `{MOVED[given[0]]}`", file=sys.stderr)
        return 2
    try:
        run(args)
    except (DataError, SolveError, FileNotFoundError, ValueError, MisconfigurationException) as error:
        if os.environ.get(DEBUG):
            raise
        print(f"error: {_advised(error)}", file=sys.stderr)
        return 1
    finally:
        leave_process_group()
    return 0


def leave_process_group() -> None:
    """End torch's process group while Python still runs. Lightning does so for NCCL alone; a thread of gloo that lets go of
    a tensor while Python ends aborts the process, its work done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _short(message: str) -> str:
    """An unknown option, or a number out of its range, as one line with its path; jsonargparse shows every type that it tried."""
    option = re.findall(r"Option '([^']+)' is not accepted", message)
    keys, owners = re.findall(r'Parser key "([^"]+)"', message), re.findall(r"given class_path '([^']+)'", message)
    ranges = re.findall(r"Not of type \w+: (.+)", message)
    if len(ranges) == 1 and keys:
        return f"{'.'.join(keys)}: {ranges[0]}"
    if not option or not keys or not owners:
        return message
    return f"{'.'.join(keys)}.{option[-1]}: {owners[-1]} has no option '{option[-1]}'"


def _advised(error: Exception) -> str:
    """The message of an error, with what to do about the few that do not say so themselves."""
    message = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException) and "gpu" in message.lower():
        count = torch.cuda.device_count()
        message += f" This machine has {count} GPUs: choose trainer.accelerator and trainer.devices to match (conf/trainer/)."
    return message
