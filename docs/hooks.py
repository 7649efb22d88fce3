"""What MkDocs builds beside the pages of this folder: files of the repository at their own paths, the reference, and formulas.

A page links to `../results/table1.md` or `../conf/solver/joint.yaml`, as they lie in a checkout; in the site they lie beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert  # type: ignore[import-untyped]
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from options import commands, room, run_files

REPO = Path(__file__).parents[1]
BROUGHT = ("results/**/*", "conf/**/*.yaml", "tasks/*.yaml", "data/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
ROOMS = ("core", "models", "tasks", "callbacks", "data", "attacks", "starts", "metrics")
MADE: dict[str, Callable[[], str]] = {"run_files": run_files, "commands": commands}
LINK = re.compile(r"(?<=\]\()(?:\.\./)+(?=\w)")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages and pictures, and the pages that are made from the signatures."""
    for pattern in BROUGHT:
        for path in sorted(REPO.glob(pattern)):
            if path.is_file():
                files.append(File(path.relative_to(REPO).as_posix(), str(REPO), config.site_dir, config.use_directory_urls))
    made = {name: make() for name, make in MADE.items()} | {name: room(name) for name in ROOMS}
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Of links that leave this folder, the folder left out."""
    out = "../" * (page.file.src_uri.count("/") + 1)
    return LINK.sub(lambda found: found[0].removeprefix("../") if found[0] == out else found[0], markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers draw without a script."""
    return MATHS.sub(lambda found: convert(unescape(found[3]), display="inline" if found[2] == "(" else "block"), html)
