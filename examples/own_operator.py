"""An inverse problem with an operator of one's own: a digit from the sums of its rows and columns, by a trained net (Eq. 22).

python examples/own_operator.py FOLDER     # a minute; FOLDER gets tomography.png: measured, recovered, true
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from generator import picture, train, trainer
from torch import Tensor

from jiio_lightning.core.operators import Measurement, Operator
from jiio_lightning.metrics.psnr import psnr
from jiio_lightning.tasks import Inverse


class Projections(Operator):
    """The means of all rows and of all columns: 16 numbers of 64 pixels."""

    def measure(self, image: Tensor, generators: Sequence[torch.Generator]) -> Measurement:
        y = self.project(image)
        rows, columns = y.split(image.shape[2:], dim=2)
        shown = rows.unsqueeze(3) + columns.unsqueeze(2) - image.mean((2, 3), keepdim=True)  # the shortest image with this y
        return Measurement(y, self.project, shown)

    @staticmethod
    def project(image: Tensor) -> Tensor:
        """``(B, 1, H, W)`` to ``(B, 1, H + W)``."""
        return torch.cat([image.mean(3), image.mean(2)], dim=2)


def main(folder: Path, steps: int = 280) -> tuple[float, float]:
    """Returns the mean PSNR in dB of the images that the net finds, and of the shortest ones with the same sums."""
    generator, data = train(folder, steps)
    problem = Inverse(generator.net, Projections())  # nothing is trained: the net is used as it is
    batches = trainer(folder).predict(problem, data)
    recovered, shown = (torch.cat([batch[name] for batch in batches]) for name in ("image", "shown"))
    true = data.split_images("test")
    picture(folder / "tomography.png", torch.cat([shown[:10], recovered[:10], true[:10]]))
    ours, shortest = (psnr(images, true, data_range=2.0).mean().item() for images in (recovered, shown))
    print(f"recovered {ours:.1f} dB, least squares {shortest:.1f} dB")
    return ours, shortest


if __name__ == "__main__":
    main(Path(sys.argv[1]))
