"""Jobs of an image with other code are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_project import REPOSITORY

import hesspipe
from hesspipe.errors import HesspipeError
from hesspipe.unfinished import state_root
from hesspipe.workflow import remote_code
from hesspipe.workflow.closure import parse
from hesspipe.workflow.code_files import code_digest
from hesspipe.workflow.project import Project


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small copy of the package, which takes the place of the imported one."""
    folder = tmp_path / "hesspipe"
    for name in ("linalg", "workflow"):
        shutil.copytree(REPOSITORY / "hesspipe" / name, folder / name)
    monkeypatch.setattr(hesspipe, "__file__", str(folder / "__init__.py"))
    return folder


def digest() -> str:
    for function in (remote_code.package_digest, code_digest, parse):
        function.cache_clear()
    return remote_code.package_digest()


def test_package_digest_is_that_of_what_decides_numbers(package: Path) -> None:
    before = digest()
    with (package / "workflow/jobs.py").open("a") as file:
        file.write("x = 1\n")
    assert digest() == before
    with (package / "linalg/lanczos.py").open("a") as file:
        file.write("x = 1\n")
    assert digest() != before


def test_require_announced_code_refuses_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    remote_code.package_digest.cache_clear()
    monkeypatch.setenv("HESSPIPE_STATE", "/shared/states")
    monkeypatch.delenv("HESSPIPE_DEVICE", raising=False)
    monkeypatch.setenv(remote_code.VARIABLE, "")
    remote_code.require_announced_code()  # nothing is announced
    names = remote_code.variables_for_jobs()
    assert "HESSPIPE_STATE" in names
    assert "HESSPIPE_DEVICE" not in names
    remote_code.require_announced_code()
    monkeypatch.setenv(remote_code.VARIABLE, "0" * 64)
    with pytest.raises(HesspipeError, match="is not the one that Snakemake was started with"):
        remote_code.require_announced_code()


@pytest.mark.parametrize(("value", "expected"), [("", ".hesspipe"), ("/shared/s", "/shared/s")])
def test_state_root_is_set_by_the_environment(
    value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HESSPIPE_STATE", value)
    assert state_root() == Path(expected)


def test_code_is_marked_and_data_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a storage, code is where the job is, and everything else in the storage."""
    monkeypatch.chdir(tmp_path)
    project = Project(None, str(REPOSITORY), lambda path: f"source {path}")  # type: ignore[arg-type]
    assert project.code("train")(None).startswith("source .hesspipe/code/train/")
