"""`make verify` finds every damaged and every foreign file, whatever the times of the files say."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from small_project import Project

from hesspipe.files import write_text
from hesspipe.workflow.dvc_lock import unlike_lock
from hesspipe.workflow.origins import Origin
from hesspipe.workflow.verify import inspect, rebuild_command

PATH = "metrics/outliers.json"


def flip(path: Path, share: float) -> None:
    """Flip one bit in the middle of a file, and keep its times."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def sections(output: str) -> dict[str, dict[str, str]]:
    """The listed files by section, each with what is wrong."""
    found: dict[str, dict[str, str]] = {}
    for line in output.splitlines():
        if re.fullmatch(r"[A-Z][\w ]+:", line):
            found[line[:-1]] = {}
        elif match := re.fullmatch(r"  ([\w./]+[.]\w+): (.*)", line):
            found[[*found][-1]][match[1]] = match[2]
    return found


def test_verify_lists_what_is_damaged_or_foreign_with_a_command_that_rebuilds_it(
    project: Project,
) -> None:
    tables = sorted(project.folder.glob("results/spectra/**/*.parquet"))
    damaged = [
        *(project.folder / "results/datasets").glob("*.safetensors"),
        next(project.folder.glob("results/checkpoints/**/*.safetensors")),
        tables[0],
        project.folder / PATH,
        next((project.folder / "figures").glob("*.pdf")),
    ]
    before = {path.relative_to(project.folder).as_posix(): path.read_bytes() for path in damaged}
    for number, path in enumerate(damaged):
        flip(path, (number + 1) / (len(damaged) + 1))
    one, two = tables[1], tables[2]  # these change places
    for path in (one, two):
        before[path.relative_to(project.folder).as_posix()] = path.read_bytes()
    one.rename(project.folder / "aside")
    two.rename(one)
    (project.folder / "aside").rename(two)
    project.write("figures/old.pdf", "of another configuration")

    output = project.run("python", "-m", "hesspipe.workflow.verify", check=False)
    assert output.endswith("exit 1")
    found = sections(output)
    assert set(found["Damaged"]) == set(before)
    assert set(found["Left over"]) == {"figures/old.pdf"}
    assert "  Run: rm -f -- figures/old.pdf\n" in output
    assert project.read("figures/old.pdf")  # nothing is changed

    (command,) = re.findall(r"^  Run: (rm -f -- results.*)$", output, flags=re.MULTILINE)
    assert command == rebuild_command([*found["Damaged"]]).removeprefix("Run: ")
    for path in before.keys() - {PATH}:  # to save time
        (project.folder / path).write_bytes(before[path])
    project.run("bash", "-c", rebuild_command([PATH]).removeprefix("Run: "))
    assert project.read(PATH) == before[PATH]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Origin:
    """A file with both of its records."""
    monkeypatch.chdir(tmp_path)
    write_text("{}", PATH)
    content = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    origin = Origin("summarize_outliers", content, "f" * 64)
    origin.write(PATH)
    return origin


def test_inspect_takes_a_file_that_agrees_with_its_record(stored: Origin) -> None:
    found = inspect(PATH)
    assert (found.content, found.origin, found.damage) == (stored.content, stored, "")


def test_inspect_finds_a_bit_that_flipped_while_the_time_was_kept(stored: Origin) -> None:
    flip(Path(PATH), 0.0)
    found = inspect(PATH)
    assert found.origin == stored
    assert found.damage == (
        "differs from what its job wrote, by results/origins/outliers/metrics/outliers.json.json"
    )


def test_inspect_trusts_the_record_that_agrees_with_the_file(stored: Origin) -> None:
    record = Path("results/origins/outliers/metrics/outliers.json.json")
    for text in ("", "{", json.dumps({"rule": "x", "content": "0" * 64, "fingerprint": "0" * 64})):
        record.write_text(text)
        found = inspect(PATH)
        assert (found.origin, found.damage) == (stored, "")


def test_inspect_names_a_result_of_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("PAR1", "results/spectra/a.parquet")
    found = inspect("results/spectra/a.parquet")
    assert found.origin is None
    assert "as files of older versions have none" in found.damage


def test_unlike_lock_compares_contents_with_the_recorded_md5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "claims.json": "one",
        "figures/a.pdf": "one",
        "figures/b.pdf": "two",
    }.items():
        write_text(text, name)
    one, two = "f97c5d29941bfb1b2fdab0874906ab82", "b8a9f715dbb64fd5c56e7783c6820a61"
    listed = [{"md5": one, "relpath": "a.pdf"}, {"md5": two, "relpath": "b.pdf"}]
    write_text(json.dumps(listed), ".dvc/cache/files/md5/ab/c.dir")
    outs = [{"path": "claims.json", "md5": one}, {"path": "figures", "md5": "abc.dir"},
            {"path": "tables", "md5": "not here.dir"}]  # fmt: skip
    write_text(json.dumps({"stages": {"claims": {"outs": outs}, "first": {}}}), "dvc.lock")
    assert unlike_lock() == []
    for name in ("claims.json", "figures/b.pdf"):
        write_text("three", name)
    assert unlike_lock() == ["claims.json", "figures/b.pdf"]
    Path("dvc.lock").unlink()
    assert unlike_lock() == []


def test_rebuild_command_quotes_paths_and_leaves_long_lists() -> None:
    paths = ["figures/a b.pdf", "claims.json"]
    listed = shlex.join(paths)
    command = f"Run: rm -f -- {listed} && snakemake --cores all -- {listed}"
    assert rebuild_command(paths) == command
    assert rebuild_command(["x"] * 21) == "Delete these files and run: snakemake --cores all"
