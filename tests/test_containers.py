"""The files that container images are built from agree with each other and with the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from small_project import REPOSITORY

_BASE = "python:3.11-slim-bookworm"


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Versions by package, with the names as pip compares them."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", read(name), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def commands(text: str) -> list[str]:
    """Commands that are run in an image, in their order."""
    joined = text.replace("\\\n", " ").replace("{{ TORCH_OPTIONS }}", "${TORCH_OPTIONS}")
    return [" ".join(part.split()) for line in joined.splitlines() for part in line.split("&&")]


def test_both_images_are_made_by_the_same_commands() -> None:
    """But for the home of unknown users: Apptainer passes on that of whoever starts it."""
    runs = re.findall(r"^RUN ((?:.*\\\n)*.*)$", read("Dockerfile"), re.MULTILINE)
    post = read("apptainer.def").partition("%post\n")[2].partition("\n\n")[0]
    found = [command for run in runs for command in commands(run)]
    assert "sh envs/install.sh hesspipe" in found
    assert found[-1] == "mkdir --mode 1777 /home/hesspipe"
    there = [command for command in found[:-1] if command != "cd /src"]
    assert [command for command in commands(post) if command != "cd /src"] == there
    assert f"ARG BASE={_BASE}\n" in read("Dockerfile")
    assert f"From: {_BASE}\n" in read("apptainer.def")


def test_both_images_have_the_same_environment() -> None:
    for setting in ("PIP_NO_INDEX=1", "PIP_NO_DEPS=1", "PIP_FIND_LINKS=/opt/hesspipe/wheels"):
        assert setting in read("Dockerfile"), setting
        assert setting in read("apptainer.def"), setting


def test_pins_of_kubernetes_are_those_of_the_extra() -> None:
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    found = pins("envs/kubernetes.txt")
    for requirement in extras["kubernetes"]:
        package, version = requirement.split("==")
        assert found[package] == version
    assert not set(found) & set(pins("envs/constraints.txt"))


def kept() -> list[str]:
    """What .dockerignore leaves of the repository."""
    lines = read(".dockerignore").splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def test_apptainer_copies_what_the_context_of_the_image_has() -> None:
    """It reads no .dockerignore: a whole clone has gigabytes of results."""
    section = read("apptainer.def").partition("%files\n")[2].partition("\n\n")[0]
    copied = dict(line.split() for line in section.splitlines())
    assert copied == {name: f"/src/{name}" for name in kept()}


def test_packages_are_a_layer_that_new_code_leaves_as_it_is() -> None:
    """It is all but 8 MB of what is added to the base, and is built and sent once."""
    before, found, after = read("Dockerfile").partition("sh envs/install.sh packages")
    assert found
    assert re.findall(r"^COPY (.*)$", before, re.MULTILINE) == [
        "pyproject.toml /src/",
        "envs /src/envs",
    ]
    assert "COPY . /src" in after


def test_the_context_of_the_image_has_all_files_of_the_workflow() -> None:
    patterns = re.findall(r'^    "([^"]+)",$', read("setup.py"), re.MULTILINE)
    assert len(patterns) > 5
    needed = [path for pattern in patterns for path in REPOSITORY.glob(pattern)]
    needed += [REPOSITORY / name for name in ("pyproject.toml", "README.md", "envs/install.sh")]
    for path in (path.relative_to(REPOSITORY) for path in needed):
        parents = [path.as_posix(), *(parent.as_posix() for parent in path.parents)]
        assert any(fnmatch(name, entry) for name in parents for entry in kept()), path


def test_the_profile_is_one_that_snakemake_reads() -> None:
    """Keys are names of options; those of the plugins are checked where the plugins are."""
    import yaml
    from snakemake.cli import get_argument_parser

    profile = yaml.safe_load(read("profiles/kubernetes/profile.yaml"))
    options = {
        option.removeprefix("--")
        for action in get_argument_parser()._actions
        for option in action.option_strings
    }
    unknown = [key for key in profile if key not in options and not key.startswith("kubernetes-")]
    assert not unknown


def test_environments_that_snakemake_makes_are_refused(tmp_path: Path) -> None:
    """They lack hesspipe; the refusal comes before the configuration is read."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(REPOSITORY / "Snakefile"),
         "--software-deployment-method", "conda", "apptainer"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    message = "--software-deployment-method must be left out, got apptainer and conda"
    assert message in done.stdout + done.stderr
