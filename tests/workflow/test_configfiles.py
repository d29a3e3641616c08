"""Files that `hesspipe run -- --configfile` names are checked before Snakemake reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hesspipe.workflow.command import _configfiles

COMMAND = "from hesspipe.workflow.command import main; main()"
WRONG = {
    "bomb": ("\n".join(["a: &a0 [x]"] + [
        f"b{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)
    ]), "values, aliases written out"),
    "deep": ("a: " + "[" * 5000 + "]" * 5000, "levels"),
    "encoding": ("a: \xff".encode("latin-1"), "UTF-8"),
    "template": ("__use_yte__: true\n? __import__('os').mkdir('here')\n: 1", "template"),
    "loop": ("a: &a [*a]", "contains itself"),
    "twice": ("a: 1\na: 2", "is also in line 1"),
    "tag": ("a: !!python/object/apply:os.mkdir [here]", "tags are not allowed"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["--configfile", "a", "b", "--quiet", "c"], ["a", "b"]),
        (["--configfiles=a", "b"], ["a", "b"]),
        (["-n", "--configf", "a", "--config", "k=1"], ["a"]),
        (["--config", "k=1", "--configfile=a=b"], ["a=b"]),
        (["--conda-prefix", "a", "-C", "k=1"], []),
    ],
)
def test_configfiles_are_those_that_snakemake_would_read(
    options: list[str], files: list[str]
) -> None:
    assert _configfiles(options) == files


def test_run_refuses_each_wrong_configfile_in_one_line(tmp_path: Path) -> None:
    processes = {}
    for name, (content, _) in WRONG.items():
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in WRONG:
        options = ["run", "-n", "--", "--configfile", f"{name}.yaml"]
        processes[name] = subprocess.run(
            [sys.executable, "-c", COMMAND, *options],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    for name, (_, reason) in WRONG.items():
        done = processes[name]
        assert done.returncode == 1, name
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"{name}.yaml"), done.stderr
        assert reason in done.stderr, done.stderr
    assert not (tmp_path / "here").exists()
