"""A small project, built once for all tests of the workflow and copied for each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from small_project import REPOSITORY, Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with every result, built by Snakemake and recorded by DVC.

    Processes that run tests side by side share it: the first builds it, and none changes it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not folder.exists():
            built = _build(tmp_path_factory.mktemp("built") / "project", shared / "remote")
            built.folder.rename(folder)
    return Project(folder)


def _build(folder: Path, remote: Path) -> Project:
    project = make_project(folder)
    project.run("git", "init", "-q")
    ignored = (REPOSITORY / ".gitignore").read_text()
    project.write(".gitignore", ignored + "here/\n")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "core.analytics", "false")
    project.run("dvc", "remote", "add", "-q", "-d", "local", str(remote))
    # Started by itself: the order of sets differs from that in the runs to come.
    project.run("snakemake", "--cores", "2")
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
