"""``jiio sample``: what it writes, of which tasks, and where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio_lightning.commands.sampling import claim, make_density, write_samples
from jiio_lightning.models.density import Mixture, VAEMixture
from jiio_lightning.tasks import Generation


class Painter:
    """Decodes a latent (grey,) to an even image of that grey."""

    device = torch.device("cpu")

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1, None, None].expand(-1, 1, 8, 8)


class Ramp(Mixture):
    """Latents -1 to 1 in order."""

    def sample(self, n: int, seed: int) -> torch.Tensor:
        return torch.linspace(-1, 1, n).unsqueeze(1)


def test_images_are_numbered_in_the_order_of_the_samples(tmp_path):
    folder = claim(tmp_path / "deep" / "samples")
    write_samples(Painter(), Ramp(1), folder, n=5, batch_size=2, seed=0)
    files = sorted((folder / "images").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(5)]
    greys = [np.asarray(Image.open(file))[0, 0, 0] for file in files]
    assert greys == pytest.approx([0, 64, 128, 191, 255], abs=1)
    assert Image.open(folder / "grid.png").size == (5 * 18 + 2, 18 + 2)


def test_a_folder_with_other_files_is_refused(tmp_path):
    folder = claim(tmp_path / "samples")
    (folder / "images" / "000007.png").write_text("old")
    (folder / "grid.png").write_text("old")
    assert not list((claim(folder) / "images").iterdir()) and not (folder / "grid.png").exists()
    (folder / "images" / "holiday.png").write_text("dear")
    with pytest.raises(ValueError, match=r"holiday.png is not a sample: name another folder by --out, or empty it"):
        claim(folder)
    assert (folder / "images" / "holiday.png").read_text() == "dear"
    with pytest.raises(ValueError, match="is not a sample"):
        claim(folder / "images" / "holiday.png")


def test_which_density(built):
    assert isinstance(make_density("vae_gmm", Painter()), VAEMixture)
    with pytest.raises(ValueError, match="--density is one of gmm, vae_gmm, prior, got gauss"):
        make_density("gauss", Painter())
    with pytest.raises(ValueError, match="only a VAE's latents follow"):
        make_density("prior", built("--config", "tiny.yaml").model)


def test_sample(jiio, checkpoint, capsys):
    words = ("--n", 12, "--latents", 30, "--batch_size", 8, "--out", "made", "--data.train_limit", 40)
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--solver.test.max_steps", 3) == 0
    assert len(list(Path("made/images").iterdir())) == 12 and Path("made/grid.png").is_file()
    assert torch.load("made/density.pt", weights_only=True)["means"].shape == (20, 4)
    first = Path("made/images/000011.png").read_bytes()
    assert jiio("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint, *words, "--solver.test.max_steps", 3) == 0
    assert Path("made/images/000011.png").read_bytes() == first, "a function of the seed"


def test_mistakes(jiio, checkpoint, capsys):
    words = ("sample", "--config", "tiny.yaml", "--ckpt_path", checkpoint)
    assert jiio(*words, "--n", 0) == 1
    assert "--n, --latents and --batch_size of at least 1" in capsys.readouterr().err
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    assert jiio(*words, "--out", "mine") == 1
    assert "letter.txt is not a sample" in capsys.readouterr().err
    assert jiio(*words, "--latents", 5, "--solver.test.max_steps", 2) == 1
    assert "at least 20 latents" in capsys.readouterr().err


def test_a_task_decodes_what_it_is_asked_to(built):
    cli = built("--config", "tiny.yaml")
    assert isinstance(cli.model, Generation) and callable(cli.model.encode) and callable(cli.model.decode)
