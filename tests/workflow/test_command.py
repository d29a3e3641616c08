"""The command `hesspipe`, from a wheel that is unpacked far from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from small_project import REPOSITORY

COMMAND = "from hesspipe.workflow.command import main; main()"
BUILT_FROM = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "Snakefile", "hesspipe",
              "rules", "scripts", "report", "profiles", "envs", "examples/first_steps"]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel, which nothing but the interpreter's packages is beside."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        path = REPOSITORY / name
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    wheels = tmp_path_factory.mktemp("wheels")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from setuptools import build_meta; "
         "build_meta.build_wheel(sys.argv[1])", str(wheels)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    (wheel,) = wheels.glob("hesspipe-*.whl")
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def hesspipe(installed: Path, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a folder, and return its exit code and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(installed), "HESSPIPE_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_wheel_holds_every_file_of_the_workflow(installed: Path) -> None:
    workflow = installed / "hesspipe/_workflow"
    for pattern in ("Snakefile", "rules/*.smk", "scripts/*.py", "report/*.rst",
                    "profiles/*/*", "examples/first_steps/*.py"):  # fmt: skip
        paths = sorted(REPOSITORY.glob(pattern))
        assert paths
        for path in paths:
            assert (workflow / path.relative_to(REPOSITORY)).read_bytes() == path.read_bytes()


def test_new_project_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code, output = hesspipe(installed, tmp_path, "new", "mein Projekt ü")
    assert code == 0, output
    project = tmp_path / "mein Projekt ü"
    config = yaml.safe_load((project / "config.yaml").read_text(encoding="utf-8"))
    code, output = hesspipe(installed, project, "run", "-n")
    assert code == 0, output
    for rule in ("train_1000_every_500", "extract_spectrum", "estimate_density", "render_figure"):
        assert f"rule {rule}:" in output
    assert output.count("rule render_figure:") == len(config["figures"])
    code, output = hesspipe(installed, project, "run", "figures/training.png")
    assert code == 0, output
    assert (project / "results/datasets/digits.safetensors").is_file()
    assert (project / "figures/training.png").is_file()
    (code_file,) = (project / ".hesspipe/code/make_dataset").iterdir()
    assert "hesspipe/data/user.py" in code_file.read_text()
    assert str(REPOSITORY) not in output
    with (project / "results/datasets/digits.safetensors").open("ab") as file:
        file.write(b"x")
    code, output = hesspipe(installed, project, "verify")
    assert code == 1, output
    command = "rm -f -- results/datasets/digits.safetensors && hesspipe run results/datasets"
    assert command in output


def test_mistake_in_the_data_is_one_line_of_a_job(installed: Path, tmp_path: Path) -> None:
    assert hesspipe(installed, tmp_path, "new", "p")[0] == 0
    (tmp_path / "p/my_data.py").write_text(
        "def load(num_train):\n    return {}['pixels']\n", encoding="utf-8"
    )
    code, output = hesspipe(installed, tmp_path / "p", "run", "results/datasets/digits.safetensors")
    assert code == 1
    assert "\nKeyError: 'pixels' (my_data.py, line 2)\n" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "full"], "full must be a new or an empty folder, but it has files in it"),
        (["new", "full/a.txt"], "full/a.txt must be a new or an empty folder, but it is a file"),
        (["run"], "config.yaml must be in the current folder"),
        (["check"], "make a project with: hesspipe new FOLDER"),
    ],
)
def test_command_refuses_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("")
    code, output = hesspipe(REPOSITORY, tmp_path, *arguments)
    (line,) = output.splitlines()
    assert (code, message in line) == (1, True), line


@pytest.mark.parametrize("command", ["run", "check", "verify"])
def test_command_without_the_packages_of_the_workflow_says_so_in_one_line(
    tmp_path: Path, command: str
) -> None:
    absent = ("snakemake", "pydantic", "yaml", "pandas", "pyarrow", "matplotlib", "jinja2")
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); "
    done = subprocess.run(
        [sys.executable, "-c", hide + COMMAND, command],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"the workflow needs {', '.join(absent)}; run: pip install 'hesspipe[workflow]'"
    )


def test_check_names_the_state_that_does_not_fit_before_any_job(tmp_path: Path) -> None:
    hesspipe(REPOSITORY, tmp_path, "new", ".")
    path = tmp_path / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    experiment = config["experiments"]["digits"]
    experiment["training"] = {"algorithm": "saved", "path": "state.pt"}
    experiment["matrix_free"]["steps"] = "all"
    config |= {"figures": {}, "tables": {}}
    path.write_text(yaml.safe_dump(config), newline="\r\n")
    torch.save({"model": {"0.weight": torch.ones(12, 64)}, "epoch": 3}, tmp_path / "state.pt")
    code, output = hesspipe(REPOSITORY, tmp_path, "check")
    (line,) = output.splitlines()
    assert code == 1
    assert "experiments.digits.training.path: state.pt must hold the state dict of this" in line
    assert "lacks 1.weight" in line
