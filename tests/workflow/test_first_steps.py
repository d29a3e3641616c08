"""What can go wrong between `hesspipe new` and the first figure is told in one line, and early."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hesspipe.errors import ConfigError, UnwritableFileError, build_command
from hesspipe.imports import check_name
from hesspipe.workflow import command, sources
from hesspipe.workflow.verify import rebuild_command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new project, as the current folder."""
    command.new(tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    yield tmp_path / "p"
    for name in ("my_network", "my_data"):
        sys.modules.pop(name, None)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must fail, and return its last line."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    if isinstance(caught.value.code, str):
        return caught.value.code
    assert caught.value.code
    return capsys.readouterr().err.splitlines()[-1]


NETWORKS = {
    "syntax": ("def build(width:", "(my_network.py, line 1): '(' was never closed"),
    "package": ("import nowhere\nbuild = print", "line 1, imports nowhere, which is not installed"),
    "from a package": ("from no.where import build", "line 1, imports no, which is not installed"),
    "class": ("class Build: pass", "must name a function of my_network.py, which has Build"),
    "nothing": ("", "must name a function of my_network.py, which has nothing"),
    "arguments": ("def build(height): pass", "must fit (height), got ['width']"),
    "no network": ("def build(width): return 1", "must return a torch.nn.Module, got int"),
    "error": (
        "def build(width):\n    return width.nothing",
        "AttributeError: 'int' object has no attribute 'nothing' (my_network.py, line 2)",
    ),
    "script": (
        "import argparse\nargparse.ArgumentParser('x').add_argument('w')\nraise SystemExit(2)\n"
        "def build(width): pass",
        "'my_network:build' must not end Python, got SystemExit(2); put what a script does",
    ),
    "error of an import": (
        "raise RuntimeError('oh')\ndef build(width): pass",
        "RuntimeError: oh (my_network.py, line 1)",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_check_names_what_is_wrong_with_a_network(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = NETWORKS[name]
    (project / "my_network.py").write_text(text, encoding="utf-8")
    line = refused(capsys, "check")
    assert "experiments.digits.model.function" in line
    assert message in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\nbuild = print",
        "def build(width):\n    import nowhere",
        "import os.path, my_data\nfrom . import nowhere\nbuild = print",
    ],
)
def test_check_name_accepts_imports_that_may_be_missing(text: str, project: Path) -> None:
    (project / "my_network.py").write_text(text, encoding="utf-8")
    assert check_name("my_network:build") is None


def test_check_builds_networks_that_look_at_their_initial_values(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import torch\ndef build(width):\n    return torch.nn.Linear(64, int(torch.tensor(10)))\n"
    )
    (project / "my_network.py").write_text(text, encoding="utf-8")
    command.main(["check"])
    assert capsys.readouterr().out == "config.yaml has no errors\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figurs/spectrum.pdf"], "the nearest are figures/spectrum.pdf, figures/spectrum.png"),
        (["spectr"], "got 'spectr'; the nearest are spectra"),
        (["-c", "0"], "--cores must be a positive number or all, got '0'"),
        (["-c", "-1"], "--cores must be a positive number or all, got '-1'"),
        (["-c", "many"], "--cores must be a positive number or all, got 'many'"),
        (["--forceall"], "unrecognized arguments: --forceall; options of Snakemake go after --"),
    ],
)
def test_run_refuses_in_one_line_before_it_starts_snakemake(
    arguments: list[str], message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "run", *arguments)


@pytest.mark.parametrize(
    ("arguments", "ends", "expected"),
    [
        (["run"], 0, "Up to date: 6 figures in figures/, 1 table in tables/, the numbers"),
        (["run"], None, "Up to date: 6 figures in figures/, 1 table in tables/, the numbers"),
        (["run"], 1, ""),
        (["run", "-n"], 0, ""),
        (["run", "--", "--dry-run"], 0, ""),
        (["run", "figures/spectrum.pdf"], 0, ""),
    ],
)
def test_run_says_at_its_end_where_the_figures_are(
    arguments: list[str],
    ends: int | None,
    expected: str,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def main(_: list[str]) -> None:
        if ends is not None:
            raise SystemExit(ends)

    monkeypatch.setattr("snakemake.cli.main", main)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == (ends or 0)
    last = capsys.readouterr().err
    assert last.startswith(expected) if expected else last == ""


@pytest.mark.parametrize("target", ["figures/spectrum.pdf", "./figures//spectrum.pdf", "{here}"])
def test_run_finds_a_target_however_its_path_is_written(
    target: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("snakemake.cli.main", given.append)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    link = project.parent / "link"
    link.symlink_to(project)
    with pytest.raises(SystemExit):
        command.main(["run", target.format(here=link / "figures/spectrum.pdf")])
    assert given[0][-2:] == ["--", "figures/spectrum.pdf"]


def test_run_says_that_the_folder_cannot_be_written(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".snakemake/iocache").mkdir(parents=True)

    def full(folders: Any) -> None:
        last = list(folders)[-1]
        raise UnwritableFileError(last, OSError(28, "No space left on device"), "no job started")

    monkeypatch.setattr(command, "require_writable", full)
    line = refused(capsys, "run", "-n")
    assert line.startswith(".snakemake/iocache could not be written (No space left on device)")


@pytest.mark.parametrize("arguments", [["run"], ["check"], ["verify"]])
def test_command_without_the_extra_says_what_to_install(
    arguments: list[str],
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = importlib.util.find_spec
    absent = ("snakemake", "pandas")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else known(name)
    )
    assert refused(capsys, *arguments) == (
        "the workflow needs snakemake, pandas; run: pip install 'hesspipe[workflow]'"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, False),
        ("", False),
        ("[1]", False),
        ("vars: [a.yaml]", False),
        ("stages:", False),
        ("stages: [sources]", False),
        ("stages: {prepare: {cmd: python x.py, deps: [x.py]}}", False),
        ("stages: {sources: {cmd: python x.py, deps: [x.py]}}", False),
        ("stages: {sources: {foreach: [a], do: {cmd: echo}}}", False),
        ("stages: {sources: {cmd: python -m hesspipe.workflow.sources, deps: [x]}}", True),
    ],
)
def test_is_versioned_is_true_for_the_stages_of_this_workflow_only(
    text: str | None, expected: bool, project: Path
) -> None:
    if text is not None:
        Path("dvc.yaml").write_text(text, encoding="utf-8")
    assert sources.is_versioned() is expected


@pytest.mark.parametrize("text", [b"stages: [", b"\xff"])
def test_is_versioned_refuses_what_is_no_yaml_in_one_line(text: bytes, project: Path) -> None:
    Path("dvc.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"^dvc.yaml must be YAML, got .*; correct it$"):
        sources.is_versioned()


def test_commands_in_messages_run_where_there_is_no_snakefile(project: Path) -> None:
    assert build_command(project / "results/a b") == "hesspipe run 'results/a b'"
    assert rebuild_command(["a"]) == "Run: rm -f -- a && hesspipe run a"
    (project / "Snakefile").touch()
    assert build_command("results/a") == "snakemake --cores all results/a"
    assert rebuild_command(["a"]) == "Run: rm -f -- a && snakemake --cores all -- a"


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("a b", "Next: cd 'a b' && hesspipe run"),
        ("-p", "Next: cd ./-p && hesspipe run"),
        (".", "Next: hesspipe run"),
        ("ä/ö", "Next: cd 'ä/ö' && hesspipe run"),
    ],
)
def test_new_says_which_command_comes_next(
    folder: str,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command.main(["new", "--", folder])
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_command_that_is_interrupted_says_so_in_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "require_writable", interrupt)
    line = refused(capsys, "run")
    assert line == "interrupted; the same command goes on from what is finished"
