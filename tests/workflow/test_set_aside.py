"""Files that are set aside: nothing is lost, doubled or untold after a kill at any moment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small_project import make_project

from hesspipe.workflow import origins, set_aside
from hesspipe.workflow.adopt import settle

FOLDERS = ("results/spectra/old/seed0", "results/checkpoints/old/seed0", "tables")
FOREIGN = [f"{folder}/{name}" for folder in FOLDERS for name in ("a.parquet", "b.parquet")]
# Announces what Python does to files, and ends the process without any clean-up before the k-th; a
# file that is opened to be written is there by then, and empty.
KILL = """
import os, sys
changes = 0
def hook(event, arguments):
    global changes
    names = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile")
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3
    if event in names or is_write:
        changes += 1
        if changes == {number}:
            if is_write and not isinstance(arguments[0], int):
                os.open(arguments[0], os.O_WRONLY | os.O_CREAT)
            os._exit(137)
sys.addaudithook(hook)
"""


def fill(folder: Path) -> None:
    """Write foreign files, some of which have records."""
    for path in FOREIGN:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"content of {path}")
    os.chdir(folder)
    origins.Origin("rule", "content", "fingerprint").write(FOREIGN[0])


def settle_stage() -> None:
    """Settle the folders of a stage of DVC that expects no files."""
    os.environ["DVC_STAGE"] = "spectra"
    settle("Snakefile", {}, list, [])


def move_to_another_disk() -> None:
    """Settle where .hesspipe is on another disk than the results."""
    true_stat = os.stat
    moved = Path(".hesspipe").absolute()

    def stat(path: str | Path, **options: object) -> object:
        found = true_stat(path, **options)  # type: ignore[arg-type]
        if Path(path).absolute().is_relative_to(moved):
            found = os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))
        return found

    set_aside.os.stat = stat  # type: ignore[assignment]
    settle_stage()


def run_child(body: Callable[[], None], folder: Path, kill_at: int) -> tuple[int, str]:
    """Run a function in a forked process that dies before a change; its exit code and stderr."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            os.chdir(folder)
            exec(KILL.format(number=kill_at))
            body()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder, but the empty folders that Snakemake or DVC need or make again."""
    found = {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else "/"
        for path in folder.rglob("*")
    }
    return {name: text for name, text in found.items() if not name.startswith(("results", "tab"))}


@pytest.mark.parametrize("body", [settle_stage, move_to_another_disk])
def test_settle_killed_at_any_change_of_a_file_is_told_and_ends_as_undisturbed(
    body: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "spectra")
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "undisturbed")
    assert run_child(body, tmp_path / "undisturbed", 0)[0] == 0
    expected = tree(tmp_path / "undisturbed")
    assert sum(text.startswith("content of") for text in expected.values()) == len(FOREIGN)
    for number in range(1, 200):
        folder = tmp_path / str(number)
        fill(folder)
        code, said = run_child(body, folder, number)
        if code == 0:
            break
        moved = [path for path in FOREIGN if not (folder / path).exists()]
        counts = [int(count) for count in re.findall(r"set aside (\d+) files", said)]
        assert len(moved) <= sum(counts), (number, said)
        assert code == 137
        # A second kill, then the end.
        run_child(body, folder, 1 + number // 2)
        assert run_child(body, folder, 0)[0] == 0
        assert tree(folder) == expected, number
        assert not any((folder / path).exists() for path in FOREIGN)
    assert number > len(FOREIGN)


def test_set_aside_keeps_what_was_set_aside_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("results/spectra/a/seed0/x.parquet")
    contents = ["first", "second", "second", "third"]
    for content in contents:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        set_aside.set_aside([str(path)], "of a test")
    # A file where a folder was needed.
    path.parent.rmdir()
    path.parent.write_text("a file")
    set_aside.set_aside([str(path.parent)], "of a test")
    kept = sorted(one.read_text() for one in set_aside.SET_ASIDE.rglob("*") if one.is_file())
    assert kept == sorted([*set(contents), "a file"])


def test_empty_folders_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (set_aside.SET_ASIDE / "results/spectra/a/seed0").mkdir(parents=True)
    (set_aside.SET_ASIDE / "tables").mkdir()
    (set_aside.SET_ASIDE / "tables/kept.csv").write_text("1")
    set_aside.remove_empty_folders()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    aside = ".hesspipe/set_aside"
    assert left == {".hesspipe", aside, f"{aside}/tables", f"{aside}/tables/kept.csv"}


def test_two_processes_set_files_aside_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / ".hesspipe").mkdir()
    program = (
        "import time\nfrom hesspipe.workflow.set_aside import alone\n"
        "with alone():\n    print('in', flush=True)\n    time.sleep(0.3)\n"
        "    print('out', flush=True)"
    )
    with (tmp_path / "log").open("a") as log:
        both = [
            subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=log)
            for _ in range(2)
        ]
        assert [one.wait() for one in both] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 2
    assert not list((tmp_path / ".hesspipe").iterdir())


def test_outputs_of_a_job_killed_before_its_records_are_made_again_in_place(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path)
    target = "results/datasets/clusters_k2.safetensors"
    # Snakemake and the job are killed when the result is there and its first record is not.
    project.write(
        "sitecustomize.py",
        "import os, signal\n"
        "true_replace = os.replace\n"
        "def replace(source, target, **options):\n"
        "    if 'origins' in str(target) and not os.path.exists('killed'):\n"
        "        open('killed', 'w').close()\n"
        "        os.killpg(0, signal.SIGKILL)\n"
        "    true_replace(source, target, **options)\n"
        "os.replace = replace\n",
    )
    run = partial(
        subprocess.run, cwd=project.folder, env=project.environment(), text=True,
        capture_output=True, check=False, start_new_session=True,
    )  # fmt: skip
    run(["snakemake", "--cores", "1", target])
    assert (tmp_path / "killed").exists()
    assert (tmp_path / target).exists()
    assert not (tmp_path / f"results/origins/datasets/{target}.json").exists()
    run(["snakemake", "--unlock"])
    done = run(["snakemake", "--cores", "1", target])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"results/origins/datasets/{target}.json").exists()
    assert set_aside.SET_ASIDE.name not in {
        path.name for path in (tmp_path / ".hesspipe").iterdir()
    }
