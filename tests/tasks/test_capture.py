"""``solver.capture``: training steps and evaluation are those of solves that are not captured."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import Tensor, nn

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Joint
from jiio_lightning.core.capture import Captured
from jiio_lightning.core.precision import full_precision
from jiio_lightning.core.steps import Normalised, Plain
from jiio_lightning.tasks import AdversarialTraining, Generation
from tests.attacks.smooth import Smooth
from tests.core.modes import NoSynchronisation
from tests.core.test_capture import KINDS, Repeated, Stale
from tests.tasks.test_adversarial import batch as images
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


@pytest.fixture
def stale():
    """A task, its solver, and a recorder that shows where a recording has been used for what it is not."""
    model = task().train()
    solver = inject(model, steps=12)
    solver._captured = Stale()
    for _ in range(3):
        assert solver.replayed(model, batch()).v.x.any()
    return model, solver


def another(net: nn.Module) -> nn.Module:
    """One with other weights, in other places."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1.1)
    return net


@pytest.mark.parametrize(
    "change",
    [
        lambda model, solver: setattr(model, "loss_scale", 2.0),
        lambda model, solver: (setattr(solver, "test", Joint(max_steps=5)), model.eval()),
        lambda model, solver: setattr(solver.train, "max_steps", 2),
        lambda model, solver: setattr(solver.train.step, "size", 0.1),
        lambda model, solver: setattr(model, "net", another(model.net)),
    ],
)
def test_another_setting_is_another_recording(stale, change):
    model, solver = stale
    before, net = solver.replayed(model, batch()), model.net  # which is kept: else its places may be taken
    change(model, solver)
    wanted = solver.budget(model)(model.problem(batch()), model.start(batch()))
    assert not wanted.cost.allclose(before.cost) and net is not None
    for _ in range(3):
        found = solver.replayed(model, batch())
        torch.testing.assert_close(found.v.x, wanted.v.x)
        torch.testing.assert_close(found.cost, wanted.cost)
        assert found.num_steps == wanted.num_steps


def test_another_radius_is_another_recording():
    given = AdversarialTraining(Smooth(), eps=0.1).train()
    solver = AugmentedDEQSolver(Joint(Normalised(1.0), max_steps=3), Joint(max_steps=3))
    solver._captured = Stale()
    solver.setup(None, given, "fit")
    for eps in (0.1, 0.1, 0.1, 0.5, 0.5, 0.5):
        given.threat = replace(given.threat, eps=eps)
        x = solver.replayed(given, images()).v.x
        assert x.norm(dim=1).max().item() == pytest.approx(eps)


def test_a_recording_has_no_index_no_cache_and_never_waits(stale):
    model, solver = stale
    problem, seen = model.problem, []

    def looked_at(given):
        seen.append((given.index is None, torch.is_autocast_cache_enabled(), model.may_wait))
        return problem(given)

    model.problem = looked_at
    on_host = batch()._replace(index=torch.empty(4, device="meta"))  # as on a GPU: not where the task is
    with torch.autocast("cpu"), NoSynchronisation():
        solver.replayed(model, on_host)
    assert seen == [(True, False, False)] and model.may_wait


def test_what_is_recorded_in_one_precision_is_not_replayed_in_another(stale):
    model, solver = stale
    with torch.autocast("cpu"):
        for _ in range(3):
            short = solver.replayed(model, batch())
    assert not short.v.z.equal(solver.replayed(model, batch()).v.z)
    recorded = len(solver._captured._graphs)
    with full_precision("cpu"):
        for _ in range(2):
            solver.replayed(model, batch())
    assert len(solver._captured._graphs) == recorded + 1


def test_a_new_setup_forgets(stale):
    model, solver = stale
    solver.setup(None, model, "test")
    assert not solver._captured._graphs and type(solver._captured) is Stale


@pytest.mark.parametrize(
    "change",
    [
        lambda model, solver: setattr(solver, "capture", False),
        lambda model, solver: setattr(solver, "_captured", Captured()),  # of a GPU, where there is none
        lambda model, solver: setattr(model, "capturable", False),
        lambda model, solver: setattr(solver, "train", Joint(Plain(0.1), tol=1e-3)),
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


def test_a_subclass_says_anew_whether_it_is_captured():
    class OfTime(Generation):
        def problem(self, batch):
            return super().problem(batch)

    class Said(OfTime):
        capturable = True

    class Named(Generation):
        name = "named"

    assert [kind.capturable for kind in (OfTime, Said, Named)] == [False, True, True]
    assert [AdversarialTraining(Smooth(), random_start=start).capturable for start in (False, True)] == [True, False]
