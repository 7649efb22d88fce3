"""The path of a batch of tasks, through Lightning and through a checkpoint."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from experiments.baselines import MAML, Conv4, ImplicitMAML, PrototypicalNetwork, Reptile
from tests.experiments.baselines.fewshot.conftest import SHAPE, Smooth, episodes

METHODS = {
    "maml": lambda: MAML(Smooth(), steps=1),
    "fomaml": lambda: MAML(Smooth(), first_order=True),
    "reptile": lambda: Reptile(Smooth(), inner_rate=0.02),
    "imaml": lambda: ImplicitMAML(Smooth(), inner_rate=0.2, steps=4, products=3),
    "protonet": lambda: PrototypicalNetwork(Conv4(SHAPE, None, filters=8, strided=True, norm="running"), learning_rate=0.01),
}


def batches(count: int, ways: int = 3) -> DataLoader:
    return DataLoader([episodes(ways=ways)._replace(index=torch.arange(4 * i, 4 * i + 4)) for i in range(count)], batch_size=None)


def trainer(folder, steps: int) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_its_checkpoint_is_it(method, tmp_path):
    module, test = METHODS[method]().double(), batches(3)
    before = trainer(tmp_path, 1).test(module, test, verbose=False)[0]
    fit = trainer(tmp_path, 60)
    fit.fit(module, batches(60))
    after = fit.test(module, test, verbose=False)[0]
    assert after["test/loss"] < before["test/loss"] and after["test/accuracy"] > before["test/accuracy"]
    again = METHODS[method]().double()
    fit.save_checkpoint(tmp_path / "weights.ckpt")
    assert trainer(tmp_path, 1).test(again, test, ckpt_path=tmp_path / "weights.ckpt", verbose=False)[0] == after


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_returns_the_metrics_of_each_task(method, monkeypatch):
    module, batch, logged = METHODS[method]().double().eval(), episodes(), {}
    monkeypatch.setattr(module, "log", lambda name, value, **options: logged.update({name: value}))
    metrics = module.test_step(batch, 0)
    assert logged == {f"test/{name}": metrics[name].mean() for name in ("accuracy", "loss")}
    logits = module.predict_step(batch, 0)["logits"]
    right = [
        sum(int(row.argmax() == n) for row, n in zip(*pair, strict=True)) for pair in zip(logits, batch.query_label, strict=True)
    ]
    assert metrics["accuracy"].tolist() == pytest.approx([count / 9 for count in right])
    assert metrics["loss"].shape == (4,) and metrics["index"].tolist() == [0, 1, 2, 3]
    assert not metrics["loss"].requires_grad


def test_the_labels_of_queries_are_not_used():
    for make in METHODS.values():
        module, batch = make().double().eval(), episodes()
        assert module.logits(batch).equal(module.logits(batch._replace(query_label=batch.query_label.flip(1))))


def test_episodes_of_another_kind():
    with pytest.raises(ValueError, match=r"images of \(1, 5, 5\): set model.net.image_shape"):
        MAML(Smooth()).training_step(episodes(shape=(1, 5, 5)), 0)
    with pytest.raises(ValueError, match="have 4 classes: set model.net.num_classes to it, it is 3"):
        MAML(Smooth()).test_step(episodes(ways=4), 0)


def test_weights_of_another_net():
    with pytest.raises(ValueError, match="the checkpoint is of another net"):
        MAML(Smooth()).load_state_dict(MAML(Smooth(4)).state_dict())


def test_nets_that_cannot_be_adapted():
    with pytest.raises(ValueError, match="num_classes to the ways"):
        MAML(Conv4(SHAPE, None, strided=True))
    with pytest.raises(ValueError, match="norm to episode or group"):
        MAML(Conv4(SHAPE, 3, norm="running", strided=True))
