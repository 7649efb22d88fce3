"""On a GPU a training step between two that are logged never makes the host wait; its batch comes from pinned memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule, Trainer

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.tasks.base import JIIOTask
from tests.core.modes import NoSynchronisation
from tests.tasks.test_ddp import TASKS

MORE = {
    "inverse": ("--model.operator", "jiio_lightning.core.operators.GaussianNoise"),  # a mask looks at what it hides, on the host
    "adversarial": ("--model.random_start", "false", "--data.batch_size", "8"),  # random ones are drawn on the host too
    # with a tol the budget reads one number, of the step before
    "representation": ("--model.warm_start", "{tol: null}", "--data.batch_size", "null"),
}


def trainer_at(step: int) -> Trainer:
    """One on a GPU after so many steps, which logs every fifth."""
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    return SimpleNamespace(strategy=strategy, log_every_n_steps=5, global_step=step)  # type: ignore[return-value]


@pytest.fixture(params=TASKS)
def task(request, built) -> tuple[LightningModule, AugmentedDEQSolver, list]:
    """A task that has done its first step, its solver and its batches."""
    name = request.param
    config, less = TASKS[name]
    Path(f"{name}.yaml").write_text(yaml.safe_dump(less))
    cli = built("--config", config, "--config", f"{name}.yaml", *MORE.get(name, ()))
    model, data, solver = cli.model.train(), cli.datamodule, None
    for callback in cli.trainer.callbacks:
        if isinstance(callback, AugmentedDEQSolver | JacobianRegularization):
            callback.setup(None, model, "fit")
            solver = callback if isinstance(callback, AugmentedDEQSolver) else solver
    model.log = model.log_dict = lambda *_, **__: None
    data.trainer = None
    data.prepare_data()
    data.setup("fit")
    first, second, *_ = data.train_dataloader()
    model.training_step(first, 0).backward()
    if not isinstance(model, JIIOTask):  # what it remembers of a step counts once the step is done
        model.configure_optimizers().step()
    return model, solver, second


def test_a_training_step_never_waits(task):
    model, solver, batch = task
    solver.on_train_batch_end(trainer_at(1))
    with NoSynchronisation():
        model.training_step(batch, 1).backward()


def test_a_step_that_is_logged_looks_at_its_solution(task):
    model, solver, batch = task
    solver.on_train_batch_end(trainer_at(4))
    if not isinstance(model, JIIOTask):
        pytest.skip("it has no inner problem")
    with pytest.raises(AssertionError, match="wait"), NoSynchronisation():
        model.training_step(batch, 4)


def test_a_loader_can_pin_each_batch(task):
    """No two elements of a tensor are in one place: PyTorch refuses to pin a view of one for many."""
    *_, batch = task
    for part in filter(torch.is_tensor, batch):
        assert all(stride or size == 1 for size, stride in zip(part.shape, part.stride(), strict=True))
