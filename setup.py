"""Put the workflow into the wheel: the rest of the build is described in pyproject.toml.

Snakefile, rules/ and scripts/ are at the top of the repository, where Snakemake expects them. An
installed package has them in hesspipe/_workflow/, together with what `hesspipe new` copies.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_PATTERNS = [
    "Snakefile",
    "rules/*.smk",
    "scripts/*.py",
    "report/*.rst",
    "profiles/*/*.yaml",
    "envs/hesspipe.yaml",
    "examples/first_steps/*.*",
    "examples/first_steps/.gitignore",
]


def workflow_files() -> list[str]:
    """List the files of the workflow, relative to the repository."""
    return sorted({path.as_posix() for pattern in _PATTERNS for path in Path().glob(pattern)})


class BuildWithWorkflow(build_py):
    """Build the package with the workflow; an editable install uses the files in their place."""

    def run(self) -> None:
        """Copy the modules, then the workflow."""
        super().run()
        if not self.editable_mode:
            for source, target in self._copies().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        """List what a source distribution needs."""
        return [*super().get_source_files(), *workflow_files()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """List what is built."""
        copies = [] if self.editable_mode else [*self._copies().values()]
        return [*super().get_outputs(include_bytecode), *copies]

    def _copies(self) -> dict[str, str]:
        target = Path(self.build_lib, "hesspipe", "_workflow")
        return {file: str(target / file) for file in workflow_files()}


setup(cmdclass={"build_py": BuildWithWorkflow})
