"""Projects whose jobs run on the cluster of the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from slurm_cluster import NODES, PATIENCE, SlurmCluster
from small_project import Project, make_project, small_config

DATA = "clusters_k2"


def one_training(num_steps: int, spectra: list[str], num_records: int = 80) -> dict[str, Any]:
    """A configuration with one training, and spectra at its end with their figure."""
    config = small_config()
    data = config["datasets"]["clusters_k{k}"] | {"num_clusters": 2}
    del data["for"]
    training = config["trainings"]["gd"] | {
        "num_steps": num_steps, "record_every": num_steps // num_records,
        "checkpoint_every": num_steps,
    }  # fmt: skip
    figure = {"kind": "right_edge", "experiments": ["one"], "labels": ["one"], "seeds": [0]}
    return {
        **{name: config[name] for name in ("models", "spectrum", "outliers")},
        "datasets": {DATA: data},
        "experiments": {
            "one": {
                "dataset": DATA, "seeds": [0], "model": "relu", "training": training,
                "spectra": {"steps": [num_steps], "matrices": spectra},
            },
        },
        "figures": {"right_edge": figure | {"step": num_steps, "num_largest": 10}},
    }  # fmt: skip


def one_network(processes: int) -> dict[str, Any]:
    """A configuration with a network that is trained already, and its density."""
    config = small_config()
    saved = config["experiments"]["saved"]
    matrix_free = saved["matrix_free"] | {"processes": processes}
    return {
        **{name: config[name] for name in ("models", "spectrum", "outliers")},
        "datasets": {"points": config["datasets"]["points"]},
        "experiments": {"saved": saved | {"matrix_free": matrix_free}},
        "figures": {},
    }


def configure(project: Project, config: dict[str, Any]) -> None:
    """Give a project a configuration."""
    project.write("config.yaml", yaml.safe_dump(config))


def _hear_ctrl_c() -> None:
    """Undo what a shell does to commands in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Run:
    """A command that goes on.

    Attributes
    ----------
    process : Popen
    path_to_output : Path
        What it prints.
    """

    process: subprocess.Popen[str]
    path_to_output: Path

    @property
    def output(self) -> str:
        return self.path_to_output.read_text()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> str:
        """Wait for its end; return what it printed and its exit status."""
        code = self.process.wait(PATIENCE)
        return f"{self.output}\nexit {code}"


@dataclass(frozen=True)
class OnCluster:
    """A project on the login node of the cluster."""

    project: Project
    cluster: SlurmCluster

    @classmethod
    @contextlib.contextmanager
    def new(
        cls, cluster: SlurmCluster, folder: Path, config: dict[str, Any]
    ) -> Iterator[OnCluster]:
        """Give a project that has nothing, on a cluster that does nothing, also afterwards."""
        project = make_project(folder)
        configure(project, config)
        yield cls(project, cluster)
        # A test that fails leaves its Snakemake running.
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(project.folder):
                    process.kill()
        cluster.call("scancel", "--user", str(os.getuid()))
        for node in NODES:
            cluster.open_node(node)
        cluster.wait_until_idle()

    def environment(self) -> dict[str, str]:
        """Of a user of the cluster: Slurm's commands are found after this environment's."""
        ours = self.project.environment()
        wrappers = self.cluster.folder / "bin"
        return ours | {"PATH": f"{wrappers}{os.pathsep}{ours['PATH']}", "OMP_NUM_THREADS": "1"}

    def start(self, *command: str, **options: Any) -> Run:
        """Start a command in a session of its own, as a terminal does."""
        number = len([*self.project.folder.glob("output*.txt")])
        path = self.project.folder / f"output{number}.txt"
        settings: dict[str, Any] = {
            "cwd": self.project.folder, "env": self.environment(), "text": True,
            "stderr": subprocess.STDOUT, "start_new_session": True, "preexec_fn": _hear_ctrl_c,
        }  # fmt: skip
        with path.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, **settings | options)
        return Run(process, path)

    def snakemake(self, *arguments: str) -> Run:
        """Start Snakemake with the profile."""
        return self.start("snakemake", "--workflow-profile", "profiles/slurm", *arguments)

    def wait_until(self, condition: Callable[[], bool], run: Run) -> None:
        """Wait for what happens before a run ends; an hour, if neither does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if run.has_ended or time.monotonic() > end:
                jobs = self.cluster.call("scontrol", "show", "job")
                raise AssertionError(f"{run.output}\n{self.cluster.states()}\n{jobs}")
            time.sleep(0.2)

    def job(self, number: str) -> str:
        """What Slurm knows of a batch job, in one line."""
        return self.cluster.call("scontrol", "--oneliner", "show", "job", number)
