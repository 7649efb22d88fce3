"""``solver.capture``: training steps and evaluation are those of solves that are not captured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import Tensor

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Joint, Sweeps
from jiio_lightning.core.capture import Captured
from jiio_lightning.core.steps import Plain
from tests.core.test_capture import KINDS, Repeated
from tests.tasks.test_ddp import TASKS
from tests.tasks.test_generation import batch, inject, task

STEPS = 4  # the first is as it is, the second is recorded, the others are replays
MORE = {
    "generation": ("--jacobian.coefficient", "0.1"),
    "adversarial": (
        "--model.random_start",
        "false",
        "--data.batch_size",
        "8",
        "--jacobian.coefficient",
        "0.1",
        "--solver.trust_tol",
        "10",
    ),
    "meta": (),
}


@pytest.fixture(params=MORE)
def trained(request, built):
    """The weights of a task after a few steps in float64 and then a solve for evaluation, with a recorder or none."""
    config, less = TASKS[request.param]
    Path("less.yaml").write_text(yaml.safe_dump(less))

    def run(device: str, recorder: Captured | None) -> tuple[list[Tensor], AugmentedDEQSolver]:
        cli = built("--config", config, "--config", "less.yaml", "--overwrite", *MORE[request.param])
        model, data = cli.model, cli.datamodule
        solver, jacobian = (
            next(callback for callback in cli.trainer.callbacks if isinstance(callback, kind))
            for kind in (AugmentedDEQSolver, JacobianRegularization)
        )
        if recorder is not None:
            solver._captured = recorder
        solver.capture = recorder is not None
        model.double().to(device)
        for callback in (solver, jacobian):
            callback.setup(None, model, "fit")
        model.log = model.log_dict = lambda *_, **__: None
        data.trainer = None
        data.prepare_data()
        data.setup("fit")

        def on_device(given):
            moved = [t.to(device, torch.float64 if t.is_floating_point() else t.dtype) for t in given[:-1]]
            return type(given)(*moved, given.index)

        before = [weight.detach().clone() for weight in model.parameters()]
        optimiser, batches = torch.optim.SGD(model.parameters(), lr=0.1), list(data.train_dataloader()) * STEPS
        model.train()
        for step, given in enumerate(batches[:STEPS]):
            optimiser.zero_grad()
            model.training_step(on_device(given), step).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        assert not all(one.equal(two) for one, two in zip(before, model.parameters(), strict=True))
        model.eval()
        given = on_device(next(iter(data.val_dataloader())))
        found = [model.solve(given)[1] for _ in range(3)][-1]
        return [tensor.detach().cpu() for tensor in (*model.parameters(), found.v.x, found.cost, found.residuals)], solver

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_are_the_same(trained, kind):
    wanted, _ = trained(kind.device, None)
    found, solver = trained(kind.device, kind())
    assert len(solver._captured._graphs) >= 2  # of training and of evaluation
    for one, two in zip(wanted, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-9)


class Stale(Repeated):
    """Replays what it has recorded whatever Python has changed since, as a CUDA graph does."""

    def record(self, run):
        outputs = run()
        return lambda: None, outputs


def test_a_change_that_a_replay_cannot_see_is_found_out():
    model = task().train()
    solver = inject(model)
    solver._captured = Stale()
    for _ in range(3):
        assert solver.replayed(model, batch()) is not None
    model.loss_scale = 2.0
    with pytest.raises(ValueError, match="not that of the present f and loss.*solver.capture: false"):
        solver.replayed(model, batch())
    solver.may_wait = False
    assert solver.replayed(model, batch()) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda model, solver: setattr(solver, "capture", False),
        lambda model, solver: setattr(solver, "_captured", Captured()),  # of a GPU, where there is none
        lambda model, solver: setattr(model, "capturable", False),
        lambda model, solver: setattr(solver, "train", Joint(Plain(0.1), tol=1e-3)),
        lambda model, solver: setattr(solver, "train", Joint(sweeps=Sweeps(loss_every=2))),
    ],
)
def test_what_is_not_captured(change):
    model = task().train()
    solver = inject(model)
    solver._captured = Repeated()
    assert solver.replayed(model, batch()) is not None
    assert solver.replayed(model, SimpleNamespace(**batch()._asdict())) is None
    change(model, solver)
    assert solver.replayed(model, batch()) is None
