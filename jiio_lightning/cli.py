"""The command ``jiio``: the only place where configuration meets code."""

from __future__ import annotations

import sys
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core.inner import SolveError
from jiio_lightning.data import DataError
from jiio_lightning.data.cli import main as data_main
from jiio_lightning.trainer import JIIOTrainer


class SaveRunConfig(SaveConfigCallback):
    """Writes the whole configuration of a fit beside its logs; a second run in the same folder replaces it."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_none=False)
        (folder / f"{stage}_config.yaml").write_text(text)


class JIIOCLI(LightningCLI):
    """LightningCLI with the two injected callbacks as top-level keys and the command ``compare``."""

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
        """Lightning's commands and ``compare``."""
        return LightningCLI.subcommands() | {"compare": {"model", "datamodule"}}


def main(args: list[str] | None = None) -> int:
    """Run ``jiio ARGS``; returns the exit status."""
    given = sys.argv[1:] if args is None else args
    if given[:1] == ["data"]:
        return data_main(given[1:])
    try:
        JIIOCLI(
            trainer_class=JIIOTrainer,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "jiio"},
            args=args,
        )
    except (DataError, SolveError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
