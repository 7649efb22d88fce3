"""``jiio doctor``: whether what a run needs is here, and what to do where it is not."""

from __future__ import annotations

import argparse
import netrc
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from jiio_lightning.data.catalogue import MANIFEST, Manifest, data_root
from jiio_lightning.data.errors import DataError
from jiio_lightning.files import check_place
from jiio_lightning.fragments import SHIPPED

SHOWN = ("jiio-lightning", "torch", "torchvision", "pytorch-lightning", "jsonargparse", "wandb")
"""Packages whose versions are worth a line."""
ENOUGH = 1.0
"""GB of disk; a run on digits takes megabytes, one on faces a few hundred."""
TOL = 1e-5
"""Of the solve on each device."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    cure: str = ""  # what to do; empty where nothing is missing

    def __str__(self) -> str:
        mark = f"\n{'':14}missing: {self.cure}" if self.cure else ""
        return f"{self.what:14}{self.found}{mark}"


def main(args: list[str]) -> int:
    """Run ``jiio doctor``; returns 1 where something that a run needs is missing."""
    argparse.ArgumentParser(prog="jiio doctor", description=__doc__).parse_args(args)
    findings = [versions()]
    print(findings[0])
    if not findings[0].cure:  # nothing else can be tried without the packages
        for finding in (*devices(), run_files(), *prepared_sets(), *places(), wandb_login()):
            print(finding, flush=True)
            findings.append(finding)
    missing = sum(bool(finding.cure) for finding in findings)
    print(f"{missing} missing" if missing else "all that a run needs is here")
    return int(missing > 0)


def versions() -> Finding:
    """Of Python and the packages that this one requires."""
    wrong = [str(needed) for needed in map(Requirement, requires("jiio-lightning") or []) if not _satisfied(needed)]
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN if not any(each.startswith(name) for each in wrong))
    cure = "pip install " + " ".join(f"'{each}'" for each in wrong) if wrong else ""
    return Finding("versions", f"Python {platform.python_version()}, {shown}", cure)


def _satisfied(needed: Requirement) -> bool:
    if needed.marker and not needed.marker.evaluate({"extra": ""}):
        return True  # of an extra
    try:
        return needed.specifier.contains(version(needed.name), prereleases=True)
    except PackageNotFoundError:
        return False


def devices() -> Iterator[Finding]:
    """Threads, and a small solve on each device."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    yield Finding("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors")
    for name in ("cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])):
        title = torch.cuda.get_device_name(name) if name in gpus else platform.machine() if name == "cpu" else "Apple"
        try:
            residual, trouble = solve(name), ""
        except RuntimeError as error:
            residual, trouble = float("inf"), str(error).splitlines()[0]
        found = trouble or f"a solve ends at a residual of {residual:.0e}"
        cure = "" if residual < TOL else "a torch for this device, or run without it: --trainer conf/trainer/cpu.yaml"
        yield Finding(name, f"{title}: {found}", cure)


def solve(device: str) -> float:
    """The largest residual of z, mu and x (Eq. 14) that a joint solve of a small linear-quadratic problem ends at.

    >>> solve("cpu") < TOL
    True
    """
    import torch

    from jiio_lightning import Augmented, InnerProblem, Joint

    generator = torch.Generator().manual_seed(0)
    hidden, inject, target = (torch.randn(*shape, generator=generator).to(device) for shape in ((8, 8), (8, 3), (5, 8)))
    problem = InnerProblem(f=lambda z, x: 0.1 * z @ hidden.T + x @ inject.T, loss=lambda z, x: (z - target).square().sum(dim=1))
    solution = Joint(tol=TOL)(problem, Augmented.start(torch.zeros(5, 3, device=device), hidden=8))
    return solution.residuals.max().item()


def run_files() -> Finding:
    """Those that come with the package."""
    count = len(list(SHIPPED.glob("tasks/*.yaml")))
    return Finding("run files", f"{count} in {SHIPPED / 'tasks'}", "" if count else "install jiio-lightning again")


def prepared_sets() -> Iterator[Finding]:
    """Those of the usual folder; a set that is not there is no fault."""
    root = data_root(None)
    folders = sorted(path.parent for path in root.glob(f"[!.]*/{MANIFEST}"))
    if not folders:
        yield Finding("data sets", f"none in {root.resolve()} yet; digits need no preparation, `jiio data list` shows the others")
    for folder in folders:
        try:
            yield Finding("data set", f"{folder}: {Manifest.load(folder).summary}")
        except DataError as error:
            yield Finding("data set", str(folder), str(error))


def places() -> Iterator[Finding]:
    """Where runs and data sets are written."""
    for what, folder in (("runs", Path("runs")), ("data", data_root(None))):
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free / 1e9
        try:
            check_place(folder)
            cure = "" if free > ENOUGH else f"make room: {ENOUGH:g} GB are little enough"
        except ValueError as error:
            cure = f"{error}; work in another folder{'' if what == 'runs' else ', or set JIIO_DATA'}"
        yield Finding(what, f"{folder.absolute()}: {free:,.0f} GB free", cure)


def wandb_login() -> Finding:
    """Whether the logger of Weights & Biases would find a key; a run needs none."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        kept = netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        kept = False
    known = kept or bool(os.environ.get("WANDB_API_KEY"))
    return Finding("W&B", f"logged in at {host}" if known else f"not logged in at {host}: `wandb login`, or WANDB_MODE=offline")
