"""A Weights & Biases workspace as code: ``jiio dashboard``. wandb-workspaces is an optional extra."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jiio_lightning.files import write_text

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

EXTRA = "dashboards need wandb-workspaces: pip install 'jiio-lightning[dashboard]' (or pip install wandb-workspaces)"

FRECHET = r"test/(fid|frechet_[a-z0-9_]+)_(reconstruction|generation)"
"""The distances of whichever extractors have been used: only Inception's is called fid."""
QUALITY = ("test/psnr", "test/psnr_median", "test/ssim", "test/error")
ACCURACY = ("test/accuracy_clean", "test/accuracy_pgd", "test/accuracy_jiio")
HEALTH = ("feasible", "trusted", "residual_z", "residual_mu", "residual_x", "steps")
PICTURES = ("images/test", "images/val")
TABLES = ("samples/test", "solve/test")


def build(entity: str, project: str) -> Workspace:
    """The workspace: distances, quality, robust accuracy, solver health, pictures. Nothing is sent.

    Raises:
        ValueError: if wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces.workspaces import Workspace
    except ImportError as error:
        raise ValueError(EXTRA) from error
    return Workspace(entity=entity, project=project, name="JIIO", sections=_sections())


def _sections() -> list[Section]:
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, MediaBrowser, ScalarChart
    from wandb_workspaces.workspaces import Section

    health = [LinePlot(title=f"solver: {name}", x="Step", y=[f"train/{name}", f"val/{name}"]) for name in HEALTH]
    return [
        Section(
            name="Frechet distances (FID with Inception only)",
            panels=[LinePlot(title="Frechet distances", metric_regex=FRECHET)],
            is_open=True,
        ),
        Section(name="Quality", panels=[ScalarChart(title=name, metric=name) for name in QUALITY], is_open=True),
        Section(name="Robust accuracy", panels=[BarPlot(title="accuracy under attack", metrics=list(ACCURACY))], is_open=True),
        Section(name="Solver health", panels=health, is_open=True),
        Section(name="Pictures and tables", panels=[MediaBrowser(media_keys=[*PICTURES, *TABLES])]),
    ]


def specification(workspace: Workspace) -> dict[str, object]:
    """What would be sent to the server, as plain data."""
    return json.loads(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True))


def main(args: list[str]) -> int:
    """``jiio dashboard --entity E --project P [--out FILE.json]``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="jiio dashboard", description="Make the project's Weights & Biases workspace.")
    parser.add_argument("--entity", required=True, help="user or team")
    parser.add_argument("--project", required=True, help="as in the logger's settings")
    parser.add_argument("--out", type=Path, help="write it to this JSON file and send nothing")
    given = parser.parse_args(args)
    try:
        workspace = build(given.entity, given.project)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.out is None:
        print(f"dashboard: {workspace.save().url}")
        return 0
    write_text(given.out, json.dumps(specification(workspace), indent=1) + "\n")
    print(f"dashboard: {given.out}")
    return 0
