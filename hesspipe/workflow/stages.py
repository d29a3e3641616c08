"""DVC's stages, made from Snakemake's graph: one stage for each job.

    python -m hesspipe.workflow.stages           write dvc.yaml
    python -m hesspipe.workflow.stages --check   say whether dvc.yaml is up to date

Snakemake owns the graph and DVC owns the bytes. A stage's command runs its one job with
`--force`, so that DVC alone decides, and with `--allowed-rules`, so that nothing upstream is
run beside it. How many checkpoints or seeds an experiment has is known to the graph but cannot
be written as a template of dvc.yaml, so the file is made, not written by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hesspipe.files import write_text

_HEADER = (
    "# Made from Snakemake's graph by `make dvc.yaml`; run that after adding an experiment, a\n"
    "# figure or a table to config.yaml. Changed numbers need nothing: DVC reads them there.\n"
)


@dataclass(frozen=True)
class Job:
    """One job of the Snakemake graph.

    Attributes
    ----------
    rule : str
    name : str
        The rule and its wildcards; a valid name of a DVC stage.
    inputs, outputs : tuple of str
    config_keys : tuple of str
        Dotted places in config.yaml that decide the result.
    """

    rule: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    config_keys: tuple[str, ...]


def read_jobs(path_to_snakefile: str | Path = "Snakefile", target: str = "offline") -> list[Job]:
    """List every job behind a target, up to date or not, in alphabetical order.

    Parameters
    ----------
    path_to_snakefile : path
        In the folder to work in.
    target : str
        A rule or a file; the target rule itself, which makes nothing, is left out. "offline" is
        everything that needs no download, so that the stages are the same on every machine.

    Returns
    -------
    list of Job
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

    path = Path(path_to_snakefile).resolve()
    output = OutputSettings(quiet={Quietness.ALL})
    with (
        contextlib.chdir(path.parent),
        contextlib.redirect_stdout(io.StringIO()),
        SnakemakeApi(output) as api,
    ):
        workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=path)
        graph = workflow.dag(DAGSettings(forceall=True, targets={target}))
        graph.printfilegraph()  # builds the graph, and of what builds it prints the least
        jobs = [_job(job) for job in workflow._workflow.dag.jobs if job.output]
    return sorted(jobs, key=lambda job: job.name)


def dvc_stages(jobs: Iterable[Job]) -> dict[str, Any]:
    """Make the content of dvc.yaml.

    Parameters
    ----------
    jobs : iterable of Job

    Returns
    -------
    dict
        One stage per job; JSON outputs are metrics, all others plain cached outputs.
    """
    return {"stages": {job.name: _stage(job) for job in jobs}}


def to_yaml(stages: dict[str, Any]) -> str:
    """Format the content of dvc.yaml, with where it comes from."""
    return _HEADER + yaml.safe_dump(stages, sort_keys=False, width=1000)


def main(arguments: list[str] | None = None) -> None:
    """Write or check dvc.yaml in the current folder."""
    parser = argparse.ArgumentParser(prog="python -m hesspipe.workflow.stages")
    parser.add_argument("--check", action="store_true", help="do not write; fail if out of date")
    is_check = parser.parse_args(arguments).check
    text = to_yaml(dvc_stages(read_jobs()))
    if not is_check:
        write_text(text, "dvc.yaml")
    elif not Path("dvc.yaml").is_file() or Path("dvc.yaml").read_text(encoding="utf-8") != text:
        sys.exit("dvc.yaml does not match the Snakemake graph; run: make dvc.yaml")


def _job(job: Any) -> Job:
    wildcards = dict(job.wildcards.items())
    config = job.rule.params.get("config")
    keys = [] if config is None else [config.place(name, wildcards) for name in config.keys]
    return Job(
        rule=job.rule.name,
        name="-".join([job.rule.name, *(_labels(wildcards))]),
        inputs=tuple(sorted({_relative(path) for path in job.input})),
        outputs=tuple(sorted(str(path) for path in job.output)),
        config_keys=tuple(sorted(keys)),
    )


def _labels(wildcards: dict[str, str]) -> list[str]:
    """Values of the wildcards; a number behind its name."""
    return [f"{key}{value}" if value.isdigit() else value for key, value in wildcards.items()]


def _relative(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_absolute() else str(path)


def _stage(job: Job) -> dict[str, Any]:
    command = (
        f"snakemake --workflow-profile profiles/dvc --allowed-rules {job.rule} --force -- "
        + " ".join(job.outputs)
    )
    metrics = [path for path in job.outputs if path.endswith(".json")]
    stage: dict[str, Any] = {"cmd": command, "deps": list(job.inputs)}
    if job.config_keys:
        stage["params"] = [{"config.yaml": list(job.config_keys)}]
    others = [path for path in job.outputs if path not in metrics]
    if others:
        stage["outs"] = others
    if metrics:
        stage["metrics"] = metrics
    return stage


if __name__ == "__main__":
    main()
