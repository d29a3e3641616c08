"""A small project, built once for all tests of the workflow and copied for each."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_project import REPOSITORY, Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with every result, built by Snakemake and recorded by DVC."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    project.run("git", "init", "-q")
    ignored = (REPOSITORY / ".gitignore").read_text()
    project.write(".gitignore", ignored + "here/\n")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "core.analytics", "false")
    remote = project.folder.parent / "remote"
    project.run("dvc", "remote", "add", "-q", "-d", "local", str(remote))
    project.snakemake()
    project.run("dvc", "commit", "-f", "-q")
    project.commit("First results")
    project.run("dvc", "push", "-q")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project."""
    return finished.copy_to(tmp_path / "project")


@pytest.fixture
def clone(finished: Project, tmp_path: Path) -> Project:
    """A fresh clone of the finished project: sources and dvc.lock, no result and no cache."""
    folder = tmp_path / "clone"
    finished.run("git", "clone", "-q", str(finished.folder), str(folder))
    return Project(folder)
