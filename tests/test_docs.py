"""The pages keep their word: their blocks run in order, their figures are drawn, the site is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

DOCS = REPO / "docs"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)")
PAGES = [path for folder in (".", "results", "data", "docs", "docs/*") for path in sorted(REPO.glob(f"{folder}/*.md"))]
RUN = [
    *sorted(DOCS.glob("tutorials/*.md")),
    *(page for page in sorted(DOCS.glob("how-to/*.md")) if BLOCK.search(page.read_text())),
]
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "offline",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, prepared, monkeypatch):
    for name in ("tasks", "conf"):
        (tmp_path / name).symlink_to(REPO / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIIO_DATA", str(prepared))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    blocks, scope = BLOCK.findall(page.read_text()), {"__name__": page.stem}
    assert blocks
    for language, text in blocks:
        if language == "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
        else:
            exec(compile(text, f"{page.name}: python", "exec"), scope)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(DOCS.glob("figures/[a-z]*.py")), ids=lambda script: script.stem)
def test_a_figure_is_drawn(script, tmp_path):
    if "savefig" in script.read_text():
        pytest.skip("what the figures have in common")
    subprocess.run([sys.executable, script, tmp_path], check=True, env=os.environ | ENVIRONMENT)
    assert (tmp_path / f"{script.stem}.svg").stat().st_size > 1000
    assert (script.parent / f"{script.stem}.svg").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_a_link_leads_somewhere_in_a_checkout(page):
    """Those of the reference, which is made from the signatures, do so in the site."""
    links = [link for link in LINK.findall(page.read_text()) if ":" not in link and "reference/" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_page_is_in_the_navigation():
    told = (REPO / "mkdocs.yml").read_text()
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert pages and not [page for page in pages if f" {page}\n" not in told]


def test_the_run_files_that_pages_name_exist():
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md")).replace("tasks/X.yaml", "")
    named = set(re.findall(r"\b(?:conf|tasks)/[\w/.]+\.yaml", pages))
    assert named and not [path for path in named if not (REPO / path).is_file()]
