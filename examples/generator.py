"""A generator of digits, trained and sampled from Python (Sec. 4.1); tasks/digits.yaml is the same for the command line.

python examples/generator.py FOLDER     # a minute; FOLDER gets reconstructions.png and samples.png
"""

import sys
from pathlib import Path

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor
from torchvision.utils import save_image

from jiio_lightning.callbacks import AugmentedDEQSolver, JacobianRegularization
from jiio_lightning.core import Joint, StepSizes, Sweeps
from jiio_lightning.core.steps import SelfScaled
from jiio_lightning.data import Digits
from jiio_lightning.models import LatentGenerator
from jiio_lightning.models.density import Mixture
from jiio_lightning.tasks import Generation


def trainer(folder: Path, steps: int = -1) -> Trainer:
    """One on a CPU, with the inner solvers and with the penalty that keeps f a contraction."""
    fast = Joint(step_sizes=StepSizes(z=1.0, mu=1.0), sweeps=Sweeps(count=2, dual_end=4), max_steps=8)
    long = Joint(SelfScaled(forget=0.7), StepSizes(z=0.9, mu=0.9), sweeps=Sweeps(count=2), max_steps=40)
    parts = [AugmentedDEQSolver(train=fast, test=long), JacobianRegularization(coefficient=0.0, mode_coefficient=0.1, every=4)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "default_root_dir": folder}
    # inference_mode: the inner solve takes gradients in evaluation too
    return Trainer(accelerator="cpu", max_steps=steps, gradient_clip_val=0.1, inference_mode=False, callbacks=parts, **quiet)


def train(folder: Path, steps: int) -> tuple[Generation, Digits]:
    """A generator with 16 latents, and the digits that it was trained on."""
    seed_everything(0)
    data = Digits(root=str(folder / "data"), batch_size=32, eval_batch_size=300)
    model = Generation(LatentGenerator(16, channels=(16, 32), image_shape=(1, 8, 8), expansion=1), learning_rate=5e-3)
    trainer(folder, steps).fit(model, data)
    return model.eval(), data


def picture(path: Path, images: Tensor) -> None:
    """Write images ``(N, 1, 8, 8)`` in [-1, 1], ten a row."""
    save_image(images.clamp(-1, 1).repeat_interleave(4, 2).repeat_interleave(4, 3), path, nrow=10, normalize=True)


def main(folder: Path, steps: int = 280) -> float:
    """Returns the feasible error of held-out digits over that of their mean."""
    model, data = train(folder, steps)
    batch = next(iter(data.test_dataloader()))
    latents = model.encode(batch)  # (300, 16), each found by an inner solve
    images = model.decode(latents)
    picture(folder / "reconstructions.png", torch.cat([batch.image[:10], images[:10]]))
    picture(folder / "samples.png", model.decode(Mixture().fit(latents, seed=0).sample(100, seed=0)))
    return ((images - batch.image).square().mean() / (batch.image - batch.image.mean(0)).square().mean()).item()


if __name__ == "__main__":
    print(f"error of held-out digits: {main(Path(sys.argv[1])):.3f} of that of their mean")
