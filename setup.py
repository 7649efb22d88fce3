"""A wheel carries the run files: tasks/ and conf/ are copied into the package that is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRunFiles(build_py):
    """Copies them; an editable install reads those of the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "jiio_lightning", "run_files")
            shutil.rmtree(target, ignore_errors=True)  # what an older build has left
            for folder in ("tasks", "conf"):
                shutil.copytree(folder, target / folder)


setup(cmdclass={"build_py": BuildWithRunFiles})
