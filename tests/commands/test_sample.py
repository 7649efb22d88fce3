"""``jiio sample``: what it writes, of which tasks, and where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jiio_lightning.commands.sample import check_samples, write_images
from jiio_lightning.data.sampler import Draw
from jiio_lightning.models.density import KINDS, Prior


class Painter:
    """Decodes a latent (grey,) to an even image of that grey."""

    device = torch.device("cpu")

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1, None, None].expand(-1, 1, 8, 8)


def test_images_are_numbered_in_the_order_of_the_samples(tmp_path):
    folder = tmp_path
    write_images(Painter(), torch.linspace(-1, 1, 5).unsqueeze(1), folder, batch_size=2)
    files = sorted((folder / "images").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(5)]
    greys = [np.asarray(Image.open(file))[0, 0, 0] for file in files]
    assert greys == pytest.approx([0, 64, 128, 191, 255], abs=1)
    assert Image.open(folder / "grid.png").size == (5 * 18 + 2, 18 + 2)


def test_a_folder_with_other_files_is_refused(tmp_path):
    folder = tmp_path / "samples"
    check_samples(folder)
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "000007.png").write_text("old")
    (folder / "grid.png").write_text("old")
    check_samples(folder)
    (folder / "images" / "holiday.png").write_text("dear")
    with pytest.raises(ValueError, match=r"holiday.png is not a sample: name another folder by --out, or empty it"):
        check_samples(folder)
    assert (folder / "images" / "holiday.png").read_text() == "dear"
    with pytest.raises(ValueError, match="is not a sample"):
        check_samples(folder / "images" / "holiday.png")


def test_sample(jiio, checkpoint, capsys):
    words = ("--n", 12, "--latents", 30, "--batch_size", 8, "--out", "made", "--data.train_limit", 40)
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--solver.test.max_steps", 3) == 0
    assert len(list(Path("made/images").iterdir())) == 12 and Path("made/grid.png").is_file()
    assert torch.load("made/density.pt", weights_only=True)["means"].shape == (20, 4)
    first = Path("made/images/000011.png").read_bytes()
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--solver.test.max_steps", 3) == 0
    assert Path("made/images/000011.png").read_bytes() == first, "a function of the seed"
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--latents", 5) == 1
    assert len(list(Path("made/images").iterdir())) == 12, "they stay until there are new ones"
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--n", 3) == 0
    assert len(list(Path("made/images").iterdir())) == 3
    assert not list(Path().glob(".part-*"))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--n", 0), 2, "0 does not conform to restriction v>0"),
        (("--out", "mine"), 1, "letter.txt is not a sample"),
        (("--latents", 5, "--solver.test.max_steps", 2), 1, "at least 20 latents"),
        (("--density", "gauss"), 1, "--density is one of gmm, vae_gmm, prior, got gauss"),
        (("--density", "prior"), 1, "only a VAE's latents follow"),
    ],
)
def test_mistakes(jiio, checkpoint, capsys, words, status, message):
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words) == status
    assert message in " ".join(capsys.readouterr().err.split())


class Spy(Prior):
    """Notes what it is fitted to, and the seeds."""

    fitted: Tensor
    seeds: list[int]

    def fit(self, latents: Tensor, seed: int) -> Spy:
        Spy.fitted, Spy.seeds = latents, [seed]
        return super().fit(latents, seed)

    def sample(self, n: int, seed: int) -> Tensor:
        Spy.seeds.append(seed)
        return super().sample(n, seed)


def test_the_density_is_of_training_images_and_the_seed_reaches_it(built, checkpoint, monkeypatch):
    monkeypatch.setitem(KINDS, "gmm", Spy)
    cli = built("--config", "tiny.yaml", "--solver.test.max_steps", 3)
    words = {"n": 2, "latents": 15, "batch_size": 6, "out": "made", "seed": 7}
    cli.trainer.sample(cli.model, cli.datamodule, ckpt_path=str(checkpoint), **words)
    wanted = cli.model.encode(cli.datamodule.dataset("train")[Draw(0, np.arange(15))])
    torch.testing.assert_close(Spy.fitted, wanted)
    assert Spy.seeds == [7, 7]
