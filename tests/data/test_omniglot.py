"""Omniglot: one split for both of its forms, and episodes that are pure functions of (seed, number)."""

import hashlib
from functools import partial

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from jiio_lightning.data import DataError, Omniglot, omniglot
from jiio_lightning.data.episodes import STREAMS, quarter_turns
from jiio_lightning.data.omniglot import drawing_hash, read_split
from jiio_lightning.data.prepared import prepare
from jiio_lightning.data.sampler import Draw

loose = partial(prepare, Omniglot(), strict=False)
BACKGROUND, EVALUATION = "images_background", "images_evaluation"
TRAIN, TEST = 14, 6  # characters of the miniature


@pytest.fixture(scope="module")
def drawings(mini) -> dict[str, np.ndarray]:
    return {BACKGROUND: mini.omniglot_drawings(12, 0), EVALUATION: mini.omniglot_drawings(8, 1)}


@pytest.fixture(scope="module")
def names(drawings) -> list[str]:
    """Least hashes of the drawings of each character, in the order of the sources."""
    return [min(map(drawing_hash, character)) for part in drawings.values() for character in part]


@pytest.fixture(autouse=True)
def split_of_the_miniature(names, tmp_path, monkeypatch):
    order = np.random.default_rng(0).permutation(len(names))
    lines = [f"{'train' if place < TRAIN else 'test'} {names[i]}" for place, i in enumerate(order)]
    (tmp_path / "split.txt").write_text("\n".join(["# a comment", *lines]))
    monkeypatch.setattr(omniglot, "SPLIT_FILE", tmp_path / "split.txt")


def write_arrays(folder, drawings):
    folder.mkdir(parents=True)
    for part, images in drawings.items():
        labels = np.arange(len(images))[:, None].repeat(20, axis=1)
        np.savez_compressed(folder / f"{part}.npz", images=images, labels=labels)
    return folder


def write_zips(mini, folder, drawings, suffix=".zip"):
    for part, images in drawings.items():
        inside = mini.omniglot_pictures(part, images)
        files = inside if suffix else {name.removeprefix(f"{part}/"): blob for name, blob in inside.items()}
        mini.write(folder / f"{part}{suffix}", files)
    return folder


@pytest.fixture
def data(drawings, tmp_path) -> Omniglot:
    loose(write_arrays(tmp_path / "source", drawings), tmp_path / "root")
    return Omniglot(root=str(tmp_path / "root"), batch_size=4, train_episodes=12, val_episodes=3, test_episodes=10)


def test_arrays_and_zips_give_the_same_bytes(mini, drawings, tmp_path):
    """Also with another order of characters and drawings."""
    shuffled = {part: images[::-1, np.random.default_rng(2).permutation(20)] for part, images in drawings.items()}
    sources = [
        write_arrays(tmp_path / "arrays", drawings),
        write_arrays(tmp_path / "shuffled", shuffled),
        write_zips(mini, tmp_path / "zips", drawings),
        write_zips(mini, tmp_path / "torchvision" / "omniglot-py", shuffled).parent,
        write_zips(mini, tmp_path / "folders", drawings, suffix=""),
    ]
    manifests = [loose(source, tmp_path / f"root{i}").manifest for i, source in enumerate(sources)]
    assert len({manifest.checksums["images.npy"] for manifest in manifests}) == 1
    assert {manifest.splits["train"] for manifest in manifests} == {TRAIN * 20}
    assert len({tuple(manifest.notes["characters"]) for manifest in manifests}) == 1


def test_images_are_the_drawings(data, drawings, names):
    """The first character of the split, by its least hash: paper is white, ink is black."""
    name = read_split()["train"][0]
    character = np.concatenate(list(drawings.values()))[names.index(name)]
    stored = data.characters("train").tensor[:20]
    share_of_paper = sorted(character.mean(axis=(1, 2)))
    assert np.abs(np.array(sorted((stored / 255).mean(dim=(1, 2, 3)).tolist())) - share_of_paper).max() < 0.02


def test_meta_train_and_meta_test_share_no_character(data):
    train, test = data.characters("train"), data.characters("test")
    assert (len(train), len(test)) == (TRAIN * 20, TEST * 20)
    assert not {bytes(i) for i in train.tensor.numpy()} & {bytes(i) for i in test.tensor.numpy()}
    labels = data.prepared.rows("labels", "train").tensor, data.prepared.rows("labels", "test").tensor
    assert not set(labels[0].tolist()) & set(labels[1].tolist())


def test_shapes_and_labels(data):
    data.ways, data.shots, data.queries = 5, 2, 3
    batch = next(iter(data.train_dataloader()))
    assert batch.support.shape == (4, 10, 1, 28, 28) and batch.query.shape == (4, 15, 1, 28, 28)
    assert batch.support.dtype == torch.float32 and batch.support.min() >= 0 and batch.support.max() == 1
    assert batch.support_label.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 4
    assert batch.query_label.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]] * 4
    assert batch.support_label.dtype == batch.index.dtype == torch.int64
    assert data.num_classes == 5 and data.image_shape == (1, 28, 28)


def test_training_may_have_other_ways_and_queries(data):
    data.train_ways, data.train_queries = 7, 4
    train, val, test = (next(iter(make())) for make in (data.train_dataloader, data.val_dataloader, data.test_dataloader))
    assert train.support.shape[1] == 7 and train.query.shape[1] == 28 and train.query_label[0].max() == 6
    assert val.support.shape[1] == test.support.shape[1] == val.query.shape[1] == test.query.shape[1] == 5
    assert data.num_classes == 5
    data.train_ways = TRAIN + 1
    with pytest.raises(DataError, match="15 ways need at least as many characters"):
        data.characters("train")


def owners(data, split) -> dict[bytes, int]:
    """Which character each drawing of a split belongs to."""
    return {bytes(image): row // 20 for row, image in enumerate(data.characters(split).tensor.numpy())}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_episode_has_distinct_characters_and_drawings(data, split):
    data.rotate, data.shots, data.queries = False, 2, 3
    owner = owners(data, split)
    loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()
    for batch in loader:
        for support, query in zip(batch.support, batch.query, strict=True):
            images = [bytes((image * 255).round().to(torch.uint8).numpy()) for image in torch.cat([support, query])]
            assert len(set(images)) == 25
            characters = [owner[image] for image in images]
            assert characters[:10] == [c for c in characters[:10:2] for _ in range(2)]
            assert characters[10:] == [c for c in characters[:10:2] for _ in range(3)]
            assert len(set(characters)) == 5


def test_episodes_are_pure_functions_of_seed_and_number(data):
    dataset = data.dataset("train")
    batch, again = dataset[Draw(1, np.array([3, 0]))], data.dataset("train")[Draw(1, np.array([5, 3]))]
    assert batch.index.tolist() == [15, 12]
    assert batch.support[0].equal(again.support[1]) and batch.query[0].equal(again.query[1])
    assert not batch.support[0].equal(dataset[Draw(0, np.array([3]))].support[0])
    data.seed = 1
    assert not batch.support[0].equal(data.dataset("train")[Draw(1, np.array([3]))].support[0])


def test_validation_and_test_have_episodes_of_their_own(data):
    """Where they are drawn from as many characters, too: not those of training under another name."""
    numbers = np.arange(3)
    plans = [data.dataset(split)._plans(numbers)[0] for split in ("train", "val")]
    assert data.val_characters == 0 and not np.array_equal(*plans)
    assert len(set(STREAMS.values())) == 3


def test_epochs_have_new_episodes(data):
    loader = data.train_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen += [int(number) for batch in loader for number in batch.index]
    assert sorted(seen) == list(range(24))


def test_quarter_turns():
    image = torch.arange(9).view(3, 3)
    for turn, sources in enumerate(quarter_turns(3)):
        assert image.flatten()[sources].view(3, 3).equal(torch.rot90(image, turn))


def test_support_and_query_of_a_class_are_turned_alike(data):
    plain_owner = owners(data, "train")
    turned_owner = {
        bytes(np.rot90(np.frombuffer(image, np.uint8).reshape(28, 28), turn).copy()): (character, turn)
        for image, character in plain_owner.items()
        for turn in range(4)
    }
    turns = []
    for batch in data.train_dataloader():
        pairs = zip(batch.support.flatten(0, 1), batch.query.flatten(0, 1), strict=True)
        for pair in pairs:
            one, two = (turned_owner[bytes((image * 255).round().to(torch.uint8).numpy())] for image in pair)
            assert one == two
            turns.append(one[1])
    assert set(turns) == {0, 1, 2, 3}


def test_characters_held_out_for_validation(data):
    data.val_characters = 5
    train, val = ({bytes(image) for image in data.characters(split).tensor.numpy()} for split in ("train", "val"))
    assert len(data.characters("train")) == 9 * 20 and len(data.characters("val")) == 5 * 20 and not train & val
    for bad in (3, 12):
        data.val_characters = bad
        with pytest.raises(DataError, match="5 ways need at least as many characters"):
            data.characters("train")


@pytest.mark.parametrize("options", [{"shots": 10, "queries": 11}, {"train_queries": 20}])
def test_impossible_episodes(options):
    with pytest.raises(DataError, match="an episode needs"):
        Omniglot(**options)


@pytest.mark.parametrize("name", ["ways", "shots", "queries", "train_ways", "train_queries", "train_episodes"])
def test_an_episode_has_something_of_each(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Omniglot)
    with pytest.raises(Exception, match=name):
        parser.parse_args([f"--{name}", "0"])


def refused(source, root, match, strict=False):
    with pytest.raises(DataError, match=match):
        prepare(Omniglot(), source, root, strict)
    assert {path.name for path in root.iterdir()} == {".omniglot-28.lock"}


def test_damaged_and_foreign_drawings(mini, drawings, tmp_path):
    changed = {part: images.copy() for part, images in drawings.items()}
    changed[EVALUATION][2] ^= True
    refused(write_arrays(tmp_path / "a", changed), tmp_path / "root", "1 of the characters are not among Omniglot's 20, 1 are")
    refused(
        write_arrays(tmp_path / "b", {**drawings, EVALUATION: drawings[EVALUATION][:, :19]}),
        tmp_path / "root",
        r"has drawings \(19, 105, 105\)",
    )
    refused(
        write_arrays(tmp_path / "c", {**drawings, BACKGROUND: drawings[BACKGROUND][:-1]}),
        tmp_path / "root",
        "0 of the characters are not among Omniglot's 20, 1 are missing",
        strict=True,
    )


def test_damaged_files(mini, drawings, tmp_path):
    arrays = write_arrays(tmp_path / "a", drawings)
    whole = (arrays / f"{EVALUATION}.npz").read_bytes()
    (arrays / f"{EVALUATION}.npz").write_bytes(whole[: len(whole) // 2])
    refused(arrays, tmp_path / "root", "images_evaluation.npz.*fresh copy")
    np.savez(arrays / f"{EVALUATION}.npz", images=np.array([{"evil": 1}], dtype=object))
    refused(arrays, tmp_path / "root", "images_evaluation.npz has no readable array 'images'")
    np.savez(arrays / f"{EVALUATION}.npz", pictures=drawings[EVALUATION])
    refused(arrays, tmp_path / "root", "images_evaluation.npz has no readable array 'images'")
    (arrays / f"{EVALUATION}.npz").unlink()
    refused(arrays, tmp_path / "root", f"{arrays} has no images_evaluation.npz or images_evaluation.zip")
    zips = write_zips(mini, tmp_path / "zips", drawings)
    refused(zips, tmp_path / "root", "is not the original's 68d2efa1", strict=True)
    files = mini.omniglot_pictures(EVALUATION, drawings[EVALUATION])
    name = next(iter(files))
    mini.write(zips / f"{EVALUATION}.zip", {**files, name: files[name][:60]})
    refused(zips, tmp_path / "root", "is not an image that can be used")


@pytest.fixture
def listed_split(monkeypatch):
    monkeypatch.undo()
    return read_split()


def test_the_listed_split(listed_split):
    """It is what its header says, and the two parts are disjoint."""
    train, test = listed_split["train"], listed_split["test"]
    assert (len(train), len(test)) == (1200, 423) and len(set(train) | set(test)) == 1623
    order = np.random.RandomState(0).permutation(1623)
    assert [sorted(train + test)[i] for i in order] == train + test


@pytest.mark.slow
def test_the_real_characters_are_the_listed_ones(listed_split, shared_data, tmp_path):
    prepared = prepare(Omniglot(), shared_data / "omniglot", tmp_path)
    assert prepared.manifest.notes["characters"] == listed_split["train"] + listed_split["test"]
    assert prepared.manifest.splits == {"train": 24_000, "val": 0, "test": 8_460}
    batch = next(iter(Omniglot(root=str(tmp_path)).test_dataloader()))
    assert batch.support.shape == (16, 5, 1, 28, 28)


@pytest.mark.parametrize("form", ["arrays", "folders"])
def test_a_changed_bit_of_any_drawing_is_refused_when_strict(mini, drawings, tmp_path, monkeypatch, form):
    """A character's name is the least hash of its drawings: it tells nothing about the others."""

    def write(name, drawings):
        folder = tmp_path / name
        return write_arrays(folder, drawings) if form == "arrays" else write_zips(mini, folder, drawings, suffix="")

    strict = partial(prepare, Omniglot(), strict=True)
    with pytest.raises(DataError, match="some drawings are not the originals'"):
        strict(write("a", drawings), tmp_path / "1")
    known = hashlib.sha256()
    for character in sorted(sorted(map(drawing_hash, c)) for part in drawings.values() for c in part):
        known.update("".join(character).encode())
    monkeypatch.setattr(omniglot, "ORIGINAL_DRAWINGS", known.hexdigest())
    strict(write("b", drawings), tmp_path / "2")
    changed = {part: images.copy() for part, images in drawings.items()}
    largest = max(range(20), key=lambda i: drawing_hash(changed[EVALUATION][3, i]))
    changed[EVALUATION][3, largest, 50, 50] ^= True
    source = write("c", changed)
    loose(source, tmp_path / "3")
    with pytest.raises(DataError, match="some drawings are not the originals'"):
        strict(source, tmp_path / "4")
