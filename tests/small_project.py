"""The small project of the tests: tests/projects/small with a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from repository import REPOSITORY, copy_of_repository
from safetensors.torch import save_file
from snakemake_starts import run_snakemake

from hesspipe.workflow.stages import STAGES

SMALL = REPOSITORY / "tests/projects/small"
SOURCES = ["Snakefile", "rules", "report", "scripts", "hesspipe", "profiles", "envs", "dvc.yaml"]

# What the small project's configuration names besides its folder data/.
USER_FILES = "networks.py, widths.py, state.safetensors"
_TARGET_RULES = {"all", "offline", *STAGES}


@dataclass(frozen=True)
class Project:
    """A project in its folder, with a copy of the code."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Put the copied package before the installed one, and this environment's tools first."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {
            "PYTHONPATH": str(self.folder), "PATH": path, "HESSPIPE_DEVICE": "cpu",
        }  # fmt: skip

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the folder and return what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return _said(done.returncode, done.stdout + done.stderr, check)

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Run Snakemake on two cores."""
        arguments = ("--cores", "2", *arguments)
        if (self.folder / "sitecustomize.py").exists():  # which Python reads as it starts
            return self.run("snakemake", *arguments, check=check)
        return _said(*run_snakemake(arguments, self.folder, self.environment()), check)

    def planned(self, *targets: str) -> Counter[str]:
        """Count the jobs that a dry run would run, by rule; trainings by experiment."""
        output = self.snakemake("-n", *targets)
        jobs = re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)*)", output, flags=re.MULTILINE)
        named = [(rule, re.search(r"wildcards: experiment=(\w+)", text)) for rule, text in jobs]
        rules = [
            f"train_{found[1]}" if found and rule.startswith("train_") else rule
            for rule, found in named
        ]
        return Counter(rule for rule in rules if rule not in _TARGET_RULES)

    def is_finished(self, *targets: str) -> bool:
        """Whether Snakemake has nothing to do."""
        return "Nothing to be done" in self.snakemake("-n", *targets)

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def read(self, name: str) -> bytes:
        """Read a file of the project."""
        return (self.folder / name).read_bytes()

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that must be there once."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, (old, text.count(old))
        self.write(name, text.replace(old, new))

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)

    def copy_to(self, folder: Path) -> Project:
        """Copy the project, times included."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, symlinks=True)
        return Project(folder)


def _said(code: int, output: str, check: bool) -> str:
    assert code == 0 or not check, output
    return output if check else f"{output}\nexit {code}"


def make_project(folder: Path) -> Project:
    """Make the small project with a copy of the code, and nothing built."""
    shutil.copytree(SMALL, folder, dirs_exist_ok=True)
    copy_of_repository(SOURCES, folder)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    for number, parameter in enumerate(network.parameters()):
        values = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
        parameter.data = torch.sin(values + number)
    save_file(network.state_dict(), folder / "state.safetensors")
    project = Project(folder)
    project.edit("dvc.yaml", "statements.yaml, data]", f"statements.yaml, data, {USER_FILES}]")
    return project


def small_config() -> dict[str, Any]:
    """Read the small project's configuration."""
    config: dict[str, Any] = yaml.safe_load((SMALL / "config.yaml").read_text())
    return config
