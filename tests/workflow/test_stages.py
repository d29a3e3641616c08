"""The stages of dvc.yaml own the outputs of Snakemake's jobs, and depend on their inputs."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_project import REPOSITORY

from hesspipe.config.loading import load_config
from hesspipe.config.producers import inputs_of
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.errors import UnreadableFileError
from hesspipe.workflow import stages
from hesspipe.workflow.failures import explain
from hesspipe.workflow.project import Project
from hesspipe.workflow.sources import path_of
from hesspipe.workflow.stages import STAGES, code_of, origins_of, outputs_on_disk, stage_of

DVC: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


@pytest.fixture(scope="module")
def project() -> Project:
    """The repository's own configuration, with the names of its files relative to it."""
    return Project(load_config(REPOSITORY / "config.yaml"), str(REPOSITORY))


def outs(stage: str) -> set[str]:
    """List the outputs of a stage of dvc.yaml, metrics included."""
    entries = DVC[stage]["outs"] + DVC[stage].get("metrics", [])
    return {name for entry in entries for name in entry}


def test_stages_of_dvc_are_the_target_rules() -> None:
    assert list(DVC) == ["sources", *STAGES]
    for stage in STAGES:
        command = f"snakemake --workflow-profile profiles/dvc {stage}"
        assert DVC[stage]["cmd"] == command


@pytest.mark.parametrize("stage", STAGES)
def test_stage_owns_its_folders_and_their_origins_and_keeps_them(stage: str) -> None:
    folders = {str(Path(folder)) for folder in STAGES[stage]} - {"metrics"}
    metrics = {"metrics/outliers.json"} if stage == "outliers" else set()
    assert outs(stage) == folders | metrics | {origins_of(stage)}
    entries = DVC[stage]["outs"] + DVC[stage].get("metrics", [])
    assert all(settings == {"persist": True} for entry in entries for settings in entry.values())


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_what_its_results_are_built_from(project: Project, stage: str) -> None:
    needed = {
        inputs.path for key in keys_of(project, stage) for inputs in inputs_of_key(project, key)
    }
    if stage in ("figures", "tables", "claims"):
        for name in project.offline(stage):
            entry = getattr(project.config, stage)[name]
            needed |= {key.path for key in entry.reads(project.config)}
    own = set(STAGES[stage])
    available = {stage_of(path) for path in needed if not any(map(Path(path).is_relative_to, own))}
    depends = DVC[stage]["deps"]
    # Datasets go without saying: what is trained on them changes, too.
    for before in available - {stage, "datasets"}:
        assert any(Path(origins_of(before)).is_relative_to(dep) for dep in depends), before
    assert path_of(stage) in DVC[stage]["deps"]


def keys_of(project: Project, stage: str) -> list[ResultKey]:
    """List the results that a stage builds."""
    return [
        ResultKey.from_path(path) for path in project.targets(stage) if path.startswith("results/")
    ]


def inputs_of_key(project: Project, key: ResultKey) -> list[ResultKey]:
    """List the results that the job of one result reads."""
    named = inputs_of(key, project.config).values()
    return [one for found in named for one in ([found] if isinstance(found, ResultKey) else found)]


def test_stages_are_short_enough_to_read() -> None:
    assert len((REPOSITORY / "dvc.yaml").read_text().splitlines()) <= 150
    assert len((REPOSITORY / "dvc.lock").read_text().splitlines()) <= 300


def test_dvcignore_leaves_out_exactly_what_needs_a_download(project: Project) -> None:
    patterns = [
        re.compile(re.escape(line.lstrip("/")).replace(r"\*", "[^/]*") + "(/.*)?")
        for line in (REPOSITORY / ".dvcignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    offline = {path for stage in STAGES for path in project.targets(stage)}
    downloads = {
        path
        for path in project.products() - offline
        if "cifar10" in path
        or path.startswith("claims/downloaded")
        or Path(path).parent.name in ("figures", "tables")
    }
    for path in offline | downloads:
        origin = f"{origins_of(stage_of(path))}/{path}.json"
        is_ignored = any(one.fullmatch(path) for one in patterns)
        assert is_ignored == (path in downloads), path
        assert any(one.fullmatch(origin) for one in patterns) == is_ignored, origin


def test_code_of_a_stage_has_the_scripts_of_the_rules_that_write_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    found = set()
    for path in Path("rules").glob("*.smk"):
        for rule in re.split(r"^ *(?:use )?rule\b", path.read_text(), flags=re.MULTILINE)[1:]:
            (script,) = re.findall(r"project\.code(?:_of_kind)?\(\"(\w+)\"", rule)
            outputs = rule.partition("output:")[2].partition("log:")[0]
            kinds = re.findall(r"ResultKind\.(\w+)", outputs)
            paths = [f"results/{ResultKind[kind]}/x" for kind in kinds]
            paths += re.findall(r"\"((?:figures|tables|claims|metrics)[/.][^\"]+)\"", outputs)
            assert paths, rule
            for stage in {stage_of(path) for path in paths}:
                assert f"scripts/{script}.py" in code_of(stage), (script, stage)
            found.add(script)
    assert found == {path.stem for path in Path("scripts").glob("*.py")}


def test_leftovers_of_killed_jobs_are_removed_wherever_states_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HESSPIPE_STATE", str(tmp_path / "scratch"))
    for folder in ("scratch/training/one", ".hesspipe/origins", "results/spectra/one"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / ".a.json.0.tmp.json").write_text("half of")
        (tmp_path / folder / "b.json").write_text("whole")
    stages.clean_folders()
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["b.json"] * 3


def test_link_to_nowhere_in_the_place_of_a_result_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "whole.pdf").write_text("whole")
    (tmp_path / "figures/whole.pdf").symlink_to(tmp_path / "whole.pdf")
    stages.clean_folders()
    (tmp_path / "figures/dead.pdf").symlink_to("nowhere.pdf")
    with pytest.raises(UnreadableFileError, match=r"figures/dead\.pdf could not be read .*link"):
        stages.clean_folders()


@pytest.mark.parametrize(
    ("target", "is_listed"),
    [
        ("../../../elsewhere", True),
        ("../../../linked", True),
        ("..", False),
        (".", False),
        ("../..", False),
        ("../../..", False),
        ("../spectra", False),
        ("../nowhere", False),
    ],
)
def test_outputs_behind_a_link_are_listed_unless_they_are_in_the_project(
    target: str, is_listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    for name in ("results/histories/two", "results/spectra"):
        (folder / name).mkdir(parents=True)
        (folder / name / "seed0.parquet").touch()
    elsewhere = tmp_path / "elsewhere/deeper"
    elsewhere.mkdir(parents=True)
    (elsewhere / "seed0.parquet").touch()
    (tmp_path / "linked").symlink_to("elsewhere")
    (elsewhere / "circle").symlink_to("..")
    (elsewhere / "back").symlink_to(folder)
    (folder / "results/histories/one").symlink_to(target)
    monkeypatch.chdir(folder)
    behind = ["results/histories/one/deeper/seed0.parquet"] * is_listed
    others = ["results/histories/two/seed0.parquet", "results/spectra/seed0.parquet"]
    assert list(outputs_on_disk()) == behind + others


@pytest.mark.parametrize("name", ["results", "logs", ".hesspipe", "results/spectra", "figures"])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.touch, "is a file, and must be a folder. Move it away"),
        (lambda path: path.symlink_to("absent"), "is a symbolic link to absent, which does not"),
        (lambda path: path.symlink_to(path.name), "is a symbolic link to {name}, which does not"),
        (os.mkfifo, "is a file, and must be a folder. Move it away"),
    ],
)
def test_what_stands_in_the_place_of_a_folder_is_told_at_the_start(
    name: str, make: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises(FileExistsError) as caught:
        stages.clean_folders()
    line = explain(caught.value)
    assert line.startswith(f"{name}: it {told.format(name=path.name)}")
    assert "\n" not in line


def test_folders_and_links_to_folders_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    Path("results").symlink_to("elsewhere")
    Path("figures").mkdir()
    Path("claims.json").touch()
    stages.clean_folders()


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, _bind, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    "name",
    [
        "results/histories/one.parquet", "figures/one.pdf", "results/origins/training/one.json",
        ".hesspipe/origins/one.json", ".hesspipe/training/one/step0.safetensors",
    ],
)  # fmt: skip
def test_file_that_is_no_regular_file_is_told_at_the_start(
    name: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True)
    make(Path(name))
    with pytest.raises(UnreadableFileError) as caught:
        stages.clean_folders()
    assert explain(caught.value).startswith(
        f"{name} could not be read (It is not a regular file); it was not changed. "
    )
