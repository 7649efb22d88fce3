"""The commands that take run files: the only place where configuration meets code."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter, Callback, ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, Namespace, SaveConfigCallback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from jiio_lightning.callbacks import (
    AugmentedDEQSolver,
    FinalCheckpoint,
    FiniteCheck,
    Interruption,
    JacobianRegularization,
    MetricsFile,
    PredictionWriter,
    SameRun,
    SignalPictures,
    StepProgress,
)
from jiio_lightning.commands.checkpoint import CheckpointFiles, find_checkpoint, read_checkpoint
from jiio_lightning.commands.provenance import resuming
from jiio_lightning.commands.run_folder import CHECKPOINTS, check_free, held, old_checkpoints, set_aside
from jiio_lightning.commands.trainer import JIIOTrainer, check_options
from jiio_lightning.core.inner import SolveError
from jiio_lightning.data import DataError
from jiio_lightning.files import check_place, write_text
from jiio_lightning.fragments import allowing, check_values, whole_fragments
from jiio_lightning.messages import BriefParser, advised, expected, lost

DEBUG = "JIIO_DEBUG"
"""Environment variable: with it an error shows its traceback."""

IRRELEVANT = (
    r".*isinstance\(treespec, LeafSpec\).*",  # a deprecation inside Lightning
    r".*does not have many workers.*",  # prepared arrays are gathered fastest without workers
    r".*Couldn't infer the batch indices.*",  # a batch brings its own
    r".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on, or is to be replaced
    r".*args parameter is intended to run from within Python.*",  # the command line, with its fragments made whole
)
"""Warnings of libraries that do not concern the user."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LOGGERS = ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero", "pytorch_lightning")
"""They advertise."""

DEFAULTS = {
    "trainer.max_epochs": -1,  # a run's length is trainer.max_steps
    "trainer.check_val_every_n_epoch": None,  # the interval counts steps of the run, not of an epoch
    "trainer.val_check_interval": 1000,
    "trainer.inference_mode": False,  # the inner solve needs gradients in evaluation too
    "trainer.use_distributed_sampler": False,  # the data modules deal out samples to the ranks themselves
}
"""What run files need not say."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole configuration into a run's folder, ``fit_config.yaml``; what an earlier run has left there goes aside."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # now: nothing that could stop it at its start is left
        if trainer.ckpt_path is None and trainer.is_global_zero and (old := set_aside(Path(trainer.default_root_dir))):
            print(f"what an earlier run had left is in {os.path.relpath(old)}", file=sys.stderr)
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # what this run may replace a later one may not, without being told
        said = Namespace(**vars(self.config) | {"overwrite": False}) if self.config.get("overwrite") else self.config
        text = self.parser.dump(said, skip_none=False)
        write_text(Path(trainer.default_root_dir) / f"{TrainerFn(stage).value}_config.yaml", text)


class Parser(BriefParser, LightningArgumentParser):
    """Lightning's, which takes fragments for the arguments of commands too."""

    def add_method_arguments(self, theclass: type, themethod: str, *args: Any, **kwargs: Any) -> list[str]:
        """As in jsonargparse, and a command's argument may be the path of a fragment (--solvers conf/compare/adam.yaml)."""
        return super().add_method_arguments(theclass, themethod, *args, **{**kwargs, "sub_configs": True})


class JIIOCLI(LightningCLI):
    """LightningCLI with the two injected callbacks as top-level keys, the trainer's own commands and a folder for each run.

    A run's name is ``--name`` or the stem of its first ``--config``; its folder is ``trainer.default_root_dir`` or ``runs/NAME``.
    Checkpoints, metrics, pictures and the configuration are written there.
    """

    def __init__(self, *, args: list[str], **kwargs: Any) -> None:
        self.command = next((word for word in args if word in self.subcommands()), None)
        with ExitStack() as self.while_running:
            super().__init__(args=args, **kwargs)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # the options of all commands take as long to collect as all the rest of a start
        if self.command in (None, subcommand):
            parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
            if subcommand == "fit":
                parser.add_argument("--overwrite", action="store_true", help="Replace the run that the folder holds.")
            return parser
        return self.init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, help="Name of the run, unless given the stem of its first --config.")
        parser.add_lightning_class_args(AugmentedDEQSolver, "solver")
        parser.add_lightning_class_args(JacobianRegularization, "jacobian")
        parser.set_defaults(DEFAULTS)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands, and the trainer's own."""
        own = ("compare", "attack", "sample", "learn_start")
        # weights_only: false would unpickle anything
        given = {name: skipped | {"weights_only"} for name, skipped in LightningCLI.subcommands().items()}
        return given | {name: {"model", "datamodule"} for name in own}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, name the run, and look at the checkpoint before any work begins."""
        super().parse_arguments(parser, args)
        given, resumes = self.config[self.config.subcommand], self.config.subcommand == "fit"
        for group in ("trainer", "solver", "jacobian"):
            if not isinstance(given[group], Namespace):
                raise ValueError(f"{group}: {given[group]} is not a group of settings (`jiio fit --help-all` lists them)")
        check_values(given)
        check_options(given.trainer, self.config.subcommand)
        given.name = _name(given)
        path = find_checkpoint(given.ckpt_path, self.folder / CHECKPOINTS, resumes)
        given.ckpt_path = None if path is None else str(path)
        if path is not None:
            read_checkpoint(path, resumes)
        check_place(self.folder)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would change the run by what a checkpoint says of its model."""

    @property
    def folder(self) -> Path:
        """The run's."""
        given = self.config[self.config.subcommand]
        return Path(given.trainer.default_root_dir or f"runs/{given.name}")

    @cached_property
    def target(self) -> Path:
        """Where the command writes: into the run's folder, a dry run somewhere that does not stay."""
        dry = self.config[self.subcommand].trainer.fast_dev_run
        return Path(self.while_running.enter_context(TemporaryDirectory())) if dry else self.folder

    def before_instantiate_classes(self) -> None:
        """Before any work: what is there already, and who else is."""
        given = self.config[self.subcommand]
        if given.trainer.fast_dev_run and self.subcommand not in LightningCLI.subcommands():
            raise ValueError(
                f"trainer.fast_dev_run is for fit, validate, test and predict: jiio {self.subcommand} has no dry run"
            )
        if self.subcommand == "fit" and not given.trainer.fast_dev_run and rank_zero_only.rank == 0:
            self.while_running.enter_context(held(self.folder))
            check_free(self.folder, given.ckpt_path, given.overwrite, given.trainer.max_steps)
        self.parser.add_instantiator(partial(_logger, self.target), Logger)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with the logger, the checkpoint and the progress bar of a run, unless it brings its own or wants none."""
        given = self.config_init[self.subcommand].trainer
        callbacks = given.callbacks if isinstance(given.callbacks, list) else [given.callbacks] if given.callbacks else []
        own: list[Callback] = [Interruption(), SameRun(), FiniteCheck()]
        if given.enable_checkpointing is not False and not _has(callbacks, FinalCheckpoint):
            # one name without a version: commands and the README say checkpoints/last.ckpt
            last = FinalCheckpoint(
                self.target / CHECKPOINTS, save_last=True, save_on_exception=True, enable_version_counter=False
            )
            if self.subcommand == "fit" and self.config[self.subcommand].overwrite and not self.config[self.subcommand].ckpt_path:
                last.replaced = old_checkpoints(self.target)
            own += [last]
        if given.enable_progress_bar is not False and not _has(callbacks, ProgressBar):
            own += [StepProgress()]
        if self.subcommand == "predict" and not _has(callbacks, BasePredictionWriter | SignalPictures):
            own += [PredictionWriter()]
        if given.logger is None or given.logger is True:
            kwargs["logger"] = MetricsFile(self.target)
        plugins = given.plugins if isinstance(given.plugins, list) else [given.plugins] if given.plugins else []
        if not _has(plugins, CheckpointIO):
            plugins = [CheckpointFiles(resumes=self.subcommand == "fit"), *plugins]
        kwargs |= {"callbacks": [*own, *callbacks], "plugins": plugins, "default_root_dir": self.target}
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Say where the weights are."""
        path = getattr(self.trainer.checkpoint_callback, "last_model_path", "")
        if path and self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            print(f"checkpoint: {os.path.relpath(path)}")

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; one that is interrupted ends with the status of a signal, and a fit says how it goes on."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException as end:
            saved = getattr(self.trainer.checkpoint_callback, "last_model_path", "")
            path = (saved or self.config[subcommand].ckpt_path) if subcommand == "fit" else None
            launcher = self.trainer.strategy.launcher
            if isinstance(end, Exception) and isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(signal.SIGKILL)  # the processes that this one has started: they would wait for it, or complain too
            begun = any(one.begun for one in self.trainer.callbacks if isinstance(one, SameRun))
            refused = isinstance(end, ValueError | DataError) and not begun  # as the same command would be again
            if path and Path(path).is_file() and not refused and self.trainer.is_global_zero:
                print(f"go on with: {resuming(os.path.relpath(path))}", file=sys.stderr)
            by_hand = isinstance(end.__context__, KeyboardInterrupt) or any(
                callback.received for callback in self.trainer.callbacks if isinstance(callback, Interruption)
            )
            if isinstance(end, SystemExit) and (by_hand or isinstance(end, SIGTERMException)):
                raise SystemExit(128 + (signal.SIGINT if by_hand else signal.SIGTERM)) from end
            raise


def run(args: list[str] | None = None) -> JIIOCLI:
    """Execute a command of the application and return it with its trainer, model and data. Raises what goes wrong."""
    quieten()
    keep_freed_memory()
    with allowing(sys.argv[1:] if args is None else args) as allowed:
        return _run(whole_fragments(allowed))


def _run(args: list[str]) -> JIIOCLI:
    return JIIOCLI(
        trainer_class=JIIOTrainer,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"prog": "jiio"},
        args=args,
    )


def main(args: list[str] | None = None) -> int:
    """Run ``jiio ARGS`` for one of the commands that take run files; returns the exit status. A user's mistake is one line on
    stderr."""
    given = sys.argv[1:] if args is None else args
    try:
        run(given)
    except Exception as error:
        if os.environ.get(DEBUG) or not (isinstance(error, DataError | SolveError) or expected(error) or lost(error)):
            raise
        if not lost(error):
            print(f"error: {advised(error)}", file=sys.stderr)
        elif rank_zero_only.rank == 0:
            print("error: another process of this run has ended: see its own message, or it was killed", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        leave_process_group()
    return 0


def quieten() -> None:
    """Hide advertisements and warnings about the inside of Lightning in this process."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: "Tip:" not in record.getMessage())
    for message in IRRELEVANT:
        warnings.filterwarnings("ignore", message=message)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 2 GiB, for the next joint step.

    It would return the memory of each graph to the system; to have it back, page by page, is a fifth to a third of a solve on
    a CPU (results/scale.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # An old glibc takes 32 MiB at most. Without this threshold the other one would freeze it at 128 KiB.
    if mallopt is not None and (mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25)):
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def leave_process_group() -> None:
    """End torch's process group while Python still runs. Lightning does so for NCCL alone; a thread of gloo that lets go of
    a tensor while Python ends aborts the process, its work done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _name(given: Namespace) -> str:
    """Of a run; one without a run file is called like its task."""
    if given.name or not given.config:
        return given.name or given.model.class_path.rpartition(".")[2].lower()
    return Path(given.config[0]).stem


def _logger(folder: Path, kind: type[Logger], *args: Any, **kwargs: Any) -> Logger:
    """A logger of the run file or the command line; the ``save_dir`` "." is the run's folder."""
    if Path(kwargs.get("save_dir") or "runs") == Path():
        kwargs["save_dir"] = folder
    return kind(*args, **kwargs)


def _has(parts: list[Any], kind: type) -> bool:
    return any(isinstance(part, kind) for part in parts)
