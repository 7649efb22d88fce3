"""What a net of few-shot learning makes of a user's images: a table and a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from jiio_lightning.data import FewShotFolder

COLUMNS = 5
"""Images a row, where there are no more classes."""


def write_classified(data: FewShotFolder, logits: Tensor, folder: Path, count: int) -> None:
    """Write ``predictions.csv``: file, class, probability and the probability of each class; and ``classified.png``.

    Args:
        data: the episode, with the names of its classes and files.
        logits: ``(Q, N)`` of the query images.
        folder: where to.
        count: query images in the picture.
    """
    probability = logits.softmax(dim=1)
    best, chosen = (found.tolist() for found in probability.max(dim=1))
    names = [data.classes[place] for place in chosen]
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "probability", *(f"probability of {name}" for name in data.classes)])
        writer.writerows(zip(data.files, names, best, *probability.T.tolist(), strict=True))
    answers = [f"{name}\n{share:.0%}" for name, share in zip(names, best, strict=True)]
    draw(data, answers[:count]).savefig(folder / "classified.png", dpi=130, bbox_inches="tight")


def draw(data: FewShotFolder, answers: list[str]) -> Figure:
    """The support images, a column a class, above the first query images with the answers about them."""
    ways = len(data.classes)
    support = data.episode.support[0].unflatten(0, (ways, -1)).transpose(0, 1)  # (K, N, 1, H, W)
    columns, shots = max(ways, COLUMNS), len(support)
    rows = shots + -(-len(answers) // columns)
    figure = Figure(figsize=(1.1 * columns, 1.5 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False)
    for place in places.flat:
        place.axis("off")
    for row, images in zip(places, support, strict=False):
        for place, image, name in zip(row, images, data.classes, strict=False):
            _show(place, data, image, f"class {name}")
    for place, image, answer in zip(places[shots:].flat, data.episode.query[0], answers, strict=False):
        _show(place, data, image, answer)
    return figure


def _show(place: Axes, data: FewShotFolder, image: Tensor, title: str) -> None:
    low, high = data.value_range
    place.imshow(image[0].numpy(), cmap="gray", vmin=low, vmax=high)
    place.set_title(title, fontsize="x-small", parse_math=False)
