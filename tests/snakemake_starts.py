"""Starts of Snakemake for tests: a process that has imported its packages forks one for each.

Importing Snakemake, its dependencies and torch takes longer than a dry run of the small project.
hesspipe is not among what is imported: each run takes it from its own project.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# Reads runs, one a line, and answers each with an exit code. What follows the loop is a run.
_SERVER = """
import json, os, sys
import numpy, pandas, pydantic, pyarrow.parquet, safetensors.torch, torch, yaml
import snakemake.api, snakemake.cli, snakemake.dag, snakemake.executors.local
import snakemake.persistence.db, snakemake.report.html_reporter, snakemake.workflow
import snakemake.scheduling.greedy, snakemake.scheduling.job_scheduler

assert not any(name.split(".")[0] == "hesspipe" for name in sys.modules)
for line in sys.stdin:
    run = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, name in enumerate(run["outputs"], 1):
    os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
os.chdir(run["folder"])
os.environ.clear()
os.environ.update(run["environment"])
sys.path[:1] = run["environment"]["PYTHONPATH"].split(os.pathsep)
sys.argv = ["snakemake", *run["arguments"]]
snakemake.cli.main()
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Start the process, which ends with this one."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], cwd=Path(sys.executable).parent, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(server.communicate)
    return server


def run_snakemake(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[int, str]:
    """Run Snakemake in a folder, and return its exit code and what it printed."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        run = {
            "arguments": [*arguments], "folder": str(folder), "environment": {**environment},
            "outputs": [output.name, errors.name],
        }  # fmt: skip
        server.stdin.write(json.dumps(run) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), output.read() + errors.read()
