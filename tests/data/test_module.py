"""The data modules under a Trainer: workers, resumed runs, limits, the device."""

import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import OnExceptionCheckpoint

from jiio_lightning.data import FFHQ, MNIST, CelebA, DataError, Digits, ImageFolder, Omniglot
from jiio_lightning.data.prepared import prepare
from jiio_lightning.data.sampler import BatchLoader

BATCHES = 5  # of an epoch below
pytestmark = pytest.mark.filterwarnings("ignore")


class Recorder(LightningModule):
    """Learns nothing and remembers which samples it saw, flipped or not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[list[int], float]] = []
        self.evaluated: list[int] = []
        self.fail_at = -1

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise RuntimeError("interrupted")
        weights = torch.arange(batch.image[0].numel()).view_as(batch.image[0])
        self.trained.append((batch.index.tolist(), float((batch.image * weights).sum())))
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.evaluated += batch.index.tolist()

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return batch.index

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEverywhere(Callback):
    """A checkpoint at each hook at which one may be written.

    (Not at the start of a later epoch: Lightning 2.6 takes that epoch for done when it resumes there.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _save(self, trainer, hook):
        trainer.save_checkpoint(self.folder / f"{hook}-{trainer.global_step:02}.ckpt")

    def on_train_start(self, trainer, module):
        self._save(trainer, "start")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._save(trainer, "batch_end")

    def on_validation_end(self, trainer, module):
        self._save(trainer, "validation_end")

    def on_train_epoch_end(self, trainer, module):
        self._save(trainer, "epoch_end")


def trainer(epochs: int = 3, callbacks: tuple[Callback, ...] = (), **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(c, OnExceptionCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prepared")
    Digits(root=str(folder)).prepare_data()
    return str(folder)


def digits(root: str, **options) -> Digits:
    return Digits(root=root, batch_size=8, train_limit=8 * BATCHES + 3, val_limit=9, test_limit=9, flip=True, **options)


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    """What a run of three epochs sees, and its checkpoints."""
    folder, module = tmp_path_factory.mktemp("checkpoints"), Recorder()
    trainer(callbacks=(SaveEverywhere(folder),)).fit(module, digits(root))
    return module.trained, sorted(folder.iterdir())


def test_a_run_sees_each_epoch_in_another_order(uninterrupted):
    trained, _ = uninterrupted
    assert len(trained) == 3 * BATCHES
    orders = [sum((index for index, _ in trained[e * BATCHES : (e + 1) * BATCHES]), []) for e in range(3)]
    assert all(len(set(order)) == 8 * BATCHES for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(root, uninterrupted, workers):
    module = Recorder()
    trainer().fit(module, digits(root, num_workers=workers))
    assert module.trained == uninterrupted[0]


def test_a_run_goes_on_from_every_checkpoint(root, uninterrupted):
    """In the middle of an epoch, after its last batch, after its validation, at its end."""
    trained, checkpoints = uninterrupted
    assert len(checkpoints) == 1 + 3 * (BATCHES + 1 + 1)
    for path in checkpoints:
        module, done = Recorder(), int(path.stem.split("-")[1])
        trainer().fit(module, digits(root), ckpt_path=path)
        assert module.trained == trained[done:], path.stem


@pytest.mark.parametrize("name", ["batch_end-07", "batch_end-10", "validation_end-05", "epoch_end-10"])
def test_a_run_with_workers_goes_on(root, uninterrupted, name):
    """Workers fetch ahead, from the moment at which Lightning makes the iterator."""
    trained, checkpoints = uninterrupted
    path = next(path for path in checkpoints if path.stem == name)
    module = Recorder()
    trainer().fit(module, digits(root, num_workers=2), ckpt_path=path)
    assert module.trained == trained[int(name[-2:]) :]


@pytest.mark.parametrize("step", [0, 3, 4, 5, 12])
def test_a_run_goes_on_after_an_exception(root, uninterrupted, tmp_path, step):
    failing = Recorder()
    failing.fail_at = step
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(callbacks=(OnExceptionCheckpoint(tmp_path),)).fit(failing, digits(root))
    module = Recorder()
    trainer().fit(module, digits(root), ckpt_path=next(tmp_path.glob("*.ckpt")))
    assert failing.trained + module.trained == uninterrupted[0]


@pytest.mark.parametrize("options", [{"limit_train_batches": 3}, {"val_check_interval": 2}, {"max_steps": 7}])
def test_a_run_with_other_lengths_goes_on(root, tmp_path, options):
    whole = Recorder()
    trainer(callbacks=(SaveEverywhere(tmp_path),), **options).fit(whole, digits(root))
    for path in sorted(tmp_path.iterdir()):
        module, done = Recorder(), int(path.stem.split("-")[1])
        trainer(**options).fit(module, digits(root), ckpt_path=path)
        assert module.trained == whole.trained[done:], path.stem


def test_resuming_gives_no_warning_about_the_loader(root, uninterrupted):
    path = next(path for path in uninterrupted[1] if path.stem == "batch_end-07")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer().fit(Recorder(), digits(root), ckpt_path=path)
    assert not [warning for warning in caught if "not resumable" in str(warning.message)]


def test_evaluation_and_prediction_see_each_sample_once_in_order(root):
    module, data = Recorder(), digits(root, eval_batch_size=4)
    trainer().validate(module, data, verbose=False)
    trainer().test(module, data, verbose=False)
    assert module.evaluated == 2 * list(range(9))
    assert torch.cat(trainer().predict(module, data)).tolist() == list(range(9))
    asked, test = (next(iter(make())).image for make in (data.predict_dataloader, data.test_dataloader))
    assert asked.equal(test) and not asked.equal(next(iter(data.val_dataloader())).image)
    assert [len(batch.index) for batch in data.val_dataloader()] == [4, 4, 1]


def test_on_device_gives_the_same_batches(root):
    plain, resident = digits(root), digits(root, on_device=True)
    for one, two in zip(plain.train_dataloader(), resident.train_dataloader(), strict=True):
        assert all(a.equal(b) for a, b in zip(one, two, strict=True))
    with pytest.raises(DataError, match="set num_workers to 0"):
        digits(root, on_device=True, num_workers=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_batches_are_born_there(root):
    data, plain = digits(root, on_device=True), digits(root)
    data.trainer = Trainer(accelerator="gpu", devices=1, logger=False)
    for one, two in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
        assert one.image.is_cuda and one.image.cpu().equal(two.image) and one.index.cpu().equal(two.index)


def test_flips_are_for_training_only(root):
    flipped, plain = digits(root), Digits(root=root)
    for split in ("val", "test"):
        assert flipped.split_images(split, 9).equal(plain.split_images(split, 9))
        batches = flipped.val_dataloader() if split == "val" else flipped.test_dataloader()
        assert torch.cat([batch.image for batch in batches]).equal(plain.split_images(split, 9))


def test_limits_take_the_first_samples(root):
    limited, plain = digits(root), Digits(root=root)
    assert limited.split_images("val").equal(plain.split_images("val")[:9])
    assert limited.split_images("test", 4).equal(plain.split_images("test")[:4])
    with pytest.raises(DataError, match="train_limit is 1298, the split has 1297 samples"):
        Digits(root=root, train_limit=1298).train_dataloader()


def test_too_few_samples_for_a_batch(root):
    with pytest.raises(DataError, match="10 samples, less than one batch of 64"):
        Digits(root=root, train_limit=10).train_dataloader()


def test_a_process_without_a_sample_to_evaluate_is_refused(root):
    data = digits(root)
    data.trainer = SimpleNamespace(global_rank=3, world_size=10, state=SimpleNamespace(fn=None))
    with pytest.raises(DataError, match="9 val samples are too few for 10 processes: lower trainer.devices"):
        data.val_dataloader()


def test_impossible_options(root):
    with pytest.raises(DataError, match="the first value is to be below the second"):
        Digits(value_range=(1.0, 0.0))


def test_a_set_that_is_not_prepared_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JIIO_DATA", str(tmp_path))
    for data, command in (
        (MNIST(), "jiio data prepare mnist --source PATH"),
        (CelebA(crop=140), "jiio data prepare celeba --source PATH --crop 140"),
        (FFHQ(), "jiio data prepare ffhq --source PATH"),
        (Omniglot(), "jiio data prepare omniglot --source PATH"),
        (ImageFolder(name="faces"), "jiio data prepare images --source PATH --name faces"),
    ):
        data.prepare_data()
        with pytest.raises(DataError, match=f"is not prepared in {tmp_path}. Run: {command} --root {tmp_path}"):
            data.setup("fit")


def test_a_source_is_prepared_on_the_fly_and_once(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("jiio_lightning.data.module.prepare", partial(prepare, strict=False))
    source = mini.write(tmp_path / "source", mini.mnist_files(train=40))
    data = MNIST(root=str(tmp_path / "root"), source=str(source), batch_size=4)
    data.prepare_data()
    written = (tmp_path / "root" / "mnist" / "images.npy").stat().st_mtime_ns
    data.prepare_data()
    data.setup("fit")
    assert (tmp_path / "root" / "mnist" / "images.npy").stat().st_mtime_ns == written
    assert next(iter(data.train_dataloader())).image.shape == (4, 1, 28, 28)


def test_the_root_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JIIO_DATA", str(tmp_path))
    Digits().prepare_data()
    assert (tmp_path / "digits" / "manifest.json").exists()
    monkeypatch.delenv("JIIO_DATA")
    monkeypatch.chdir(tmp_path)
    Digits().prepare_data()
    assert (tmp_path / "data" / "digits" / "manifest.json").exists()


def test_the_signature_is_the_schema():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    good = {"class_path": "jiio_lightning.data.MNIST", "init_args": {"batch_size": 3, "value_range": [0, 1]}}
    data = parser.instantiate_classes(parser.parse_object({"data": good})).data
    assert data.batch_size == 3 and data.value_range == (0.0, 1.0) and not data.pad32
    bad = {"batchsize": 3, "batch_size": 0, "eval_batch_size": 0, "num_workers": -1, "seed": -1, "train_limit": 0}
    for name, value in {**bad, "value_range": [0, 1, 2]}.items():
        with pytest.raises(Exception, match=name):
            parser.parse_object({"data": {**good, "init_args": {name: value}}})


def test_overfit_batches_names_what_to_use(root):
    with pytest.raises(DataError, match="set data.train_limit instead"):
        trainer(overfit_batches=2).fit(Recorder(), digits(root))


def test_the_loader_has_nothing_to_keep(root):
    loader = digits(root).train_dataloader()
    assert isinstance(loader, BatchLoader) and loader.state_dict() == {}
    loader.load_state_dict({})
