"""The workflow on a real Slurm of two virtual nodes, through everything that happens to jobs there.

`make test-cluster` runs it: some minutes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cluster_page import commands_of_page
from slurm_cluster import NODES, SlurmCluster
from small_project import Project, make_project, small_config

TRAINING = "results/checkpoints/one/seed0/step40000.safetensors"
RULE = "train_40000_every_40000"
FIGURE = "figures/right_edge.pdf"
PATIENCE = 900.0  # seconds for what takes twenty on a machine that does nothing else


def one_experiment(num_steps: int) -> dict[str, Any]:
    """A configuration with one training, its two spectra at the end, and their figure."""
    config = small_config()
    kept = ("models", "spectrum", "outliers")
    data = config["datasets"]["clusters_k{k}"] | {"num_clusters": 2}
    del data["for"]
    training = config["trainings"]["gd"] | {
        "num_steps": num_steps, "record_every": num_steps // 80, "checkpoint_every": num_steps,
    }  # fmt: skip
    experiment = {
        "dataset": "clusters_k2", "seeds": [0], "model": "relu", "training": training,
        "spectra": {"steps": [num_steps], "matrices": ["hessian", "ggn"]},
    }  # fmt: skip
    figure = {"kind": "right_edge", "experiments": ["one"], "labels": ["one"], "seeds": [0]}
    return {
        **{name: config[name] for name in kept},
        "datasets": {"clusters_k2": data},
        "experiments": {"one": experiment},
        "figures": {"right_edge": figure | {"step": num_steps, "num_largest": 10}},
    }


@dataclass(frozen=True)
class Run:
    """A call of Snakemake that goes on."""

    process: subprocess.Popen[str]
    output: Path

    def end(self) -> str:
        """Wait for its end and return what it printed."""
        code = self.process.wait(PATIENCE)
        return f"{self.output.read_text()}\nexit {code}"


@dataclass(frozen=True)
class OnCluster:
    """A project whose commands run on the cluster."""

    project: Project
    cluster: SlurmCluster

    def start(self, *arguments: str) -> Run:
        """Call Snakemake with the profile, in a session of its own, as a terminal does."""
        output = self.project.folder / f"output{len([*self.project.folder.glob('output*')])}.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                ["snakemake", "--workflow-profile", "profiles/slurm", *arguments],
                cwd=self.project.folder, env=self.environment(), text=True,
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return Run(process, output)

    def snakemake(self, *arguments: str) -> str:
        """Call Snakemake with the profile and return what it printed."""
        return self.start(*arguments).end()

    def environment(self) -> dict[str, str]:
        """Of a user of the cluster: Slurm's commands are found after this environment's."""
        ours = self.project.environment()
        wrappers = self.cluster.folder / "bin"
        return ours | {"PATH": f"{wrappers}{os.pathsep}{ours['PATH']}", "OMP_NUM_THREADS": "1"}

    def step(self) -> int:
        """The last recorded step of the unfinished training, -1 before there is one."""
        names = [path.stem for path in self.project.folder.glob(".hesspipe/training/*/step*.saf*")]
        return max([-1, *(int(name.removeprefix("step")) for name in names)])

    def wait_for_training(self, after: int = 0) -> tuple[str, str]:
        """Wait until a training has got beyond a step; return its batch job and its node."""
        wait_until(lambda: self.step() > after and len(self.cluster.jobs()) == 1, self)
        ((job, node),) = self.cluster.jobs().items()
        return job, node


def wait_until(condition: Callable[[], bool], what: OnCluster) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            texts = [path.read_text() for path in what.project.folder.glob("output*.txt")]
            raise AssertionError("\n".join([*texts, what.cluster.call("scontrol", "show", "job")]))
        time.sleep(0.2)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The training, and everything made from it, without a cluster."""
    project = _project(tmp_path_factory.mktemp("local") / "project")
    project.snakemake(FIGURE)
    return project


def _project(folder: Path) -> Project:
    project = make_project(folder)
    project.write("config.yaml", yaml.safe_dump(one_experiment(40_000)))
    return project


@pytest.fixture
def on_cluster(cluster: SlurmCluster, tmp_path: Path) -> Iterator[OnCluster]:
    """A project that has nothing, on a cluster that does nothing."""
    yield OnCluster(_project(tmp_path / "project"), cluster)
    # A test that fails leaves its Snakemake running.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(tmp_path / "project"):
                process.kill()
    cluster.call("scancel", "--user", str(os.getuid()))
    for node in NODES:
        if cluster.states().get(node, "down").startswith("drain"):
            cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
        elif cluster.states().get(node, "down").startswith("down"):
            cluster.start_node(node)


def test_commands_of_the_page_build_what_a_local_run_builds(
    on_cluster: OnCluster, local: Project
) -> None:
    printed = ""
    for command in commands_of_page():
        done = subprocess.run(
            command, shell=True, cwd=on_cluster.project.folder, env=on_cluster.environment(),
            capture_output=True, text=True, check=False, timeout=2 * PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        printed += done.stdout + done.stderr
    # One batch job for the training and one for both spectra; the rest is local.
    assert printed.count("has been submitted with SLURM jobid") == 2
    made = [
        path
        for folder in ("results", "figures")
        for path in (local.folder / folder).rglob("*")
        if path.is_file()
    ]
    assert len(made) > 10
    for path in made:
        name = str(path.relative_to(local.folder))
        assert on_cluster.project.read(name) == path.read_bytes(), name
    assert on_cluster.project.is_finished(FIGURE)


def _cancel(on_cluster: OnCluster, job: str, node: str) -> None:
    """A user cancels the job, and its node takes no others."""
    call = on_cluster.cluster.call
    call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    call("scancel", job)


def _preempt(on_cluster: OnCluster, job: str, node: str) -> None:
    """A job of a partition with priority takes the whole node."""
    urgent = ("--partition", "urgent", "--nodelist", node, "--exclusive", "--mem", "0")
    sleep = ("--output", "/dev/null", "--wrap", "sleep 600")
    assert on_cluster.cluster.call("sbatch", *urgent, *sleep).startswith("Submitted")


def _lose_node(on_cluster: OnCluster, job: str, node: str) -> None:
    on_cluster.cluster.kill_node(node)


EVENTS = {"cancelled": _cancel, "preempted": _preempt, "of a dead node": _lose_node}


@pytest.mark.parametrize("event", EVENTS)
def test_a_training_goes_on_at_the_other_node_with_equal_bits(
    on_cluster: OnCluster, local: Project, event: str
) -> None:
    run = on_cluster.start(TRAINING)
    job, node = on_cluster.wait_for_training()
    EVENTS[event](on_cluster, job, node)
    wait_until(lambda: on_cluster.cluster.jobs().get(job) != node, on_cluster)
    reached = on_cluster.step()
    nodes = set()

    def has_ended() -> bool:
        nodes.update(one for one in on_cluster.cluster.jobs().values() if one != node)
        return run.process.poll() is not None

    wait_until(has_ended, on_cluster)
    output = run.end()
    assert output.endswith("exit 0"), output
    assert nodes == {*NODES} - {node}
    assert 0 < reached < 40_000
    assert _first_step(on_cluster.project) >= reached
    assert on_cluster.project.read(TRAINING) == local.read(TRAINING)


def _first_step(project: Project) -> int:
    """The step that the job which ended the training began with, from its progress bar."""
    found = re.search(r"(\d+)/40000", project.read("logs/train/one_seed0.log").decode())
    assert found is not None
    return int(found[1])


def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(
    on_cluster: OnCluster, local: Project
) -> None:
    run = on_cluster.start(TRAINING)
    on_cluster.wait_for_training()
    os.killpg(run.process.pid, signal.SIGINT)
    assert not run.end().endswith("exit 0")
    wait_until(lambda: not on_cluster.cluster.jobs(), on_cluster)
    reached = on_cluster.step()
    output = on_cluster.snakemake(TRAINING)
    assert output.endswith("exit 0"), output  # no lock is left
    assert _first_step(on_cluster.project) >= reached > 0
    assert on_cluster.project.read(TRAINING) == local.read(TRAINING)


def test_a_job_killed_for_memory_says_so_and_is_tried_with_more(on_cluster: OnCluster) -> None:
    attempts = f"{RULE}:mem_mb=150+2000*(attempt-1)"
    output = on_cluster.snakemake("--set-resources", attempts, "--", TRAINING)
    assert output.endswith("exit 0"), output
    jobs = re.findall(r"SLURM jobid (\d+)", output)
    asked = [on_cluster.cluster.call("scontrol", "show", "job", job) for job in jobs]
    assert [re.findall(r"MinMemoryNode=(\w+)", text) for text in asked] == [["150M"], ["2150M"]]
    assert "exceeded memory limit" in output


def test_a_job_that_never_has_enough_memory_says_what_to_do(on_cluster: OnCluster) -> None:
    few = ("--retries", "0", "--set-resources", f"{RULE}:mem_mb=150")
    output = on_cluster.snakemake(*few, "--", TRAINING)
    assert not output.endswith("exit 0")
    assert "exceeded its memory" in output
    assert "mem_mb" in output.split("exceeded its memory")[1]


def test_a_misspelled_partition_is_named_before_any_job(on_cluster: OnCluster) -> None:
    output = on_cluster.snakemake("--default-resources", "slurm_partition=debuq", "--", TRAINING)
    assert (
        "slurm_partition must be one of debug, urgent, got 'debuq' (did you mean debug?)" in output
    )
    assert "submitted" not in output
    assert not output.endswith("exit 0")


def test_a_machine_without_slurm_is_told_where_to_go(on_cluster: OnCluster, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "uname"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    ours = Path(sys.executable).parent
    environment = on_cluster.environment() | {"PATH": f"{ours}{os.pathsep}{tools}"}
    done = subprocess.run(
        ["snakemake", "--workflow-profile", "profiles/slurm", TRAINING],
        cwd=on_cluster.project.folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--executor slurm needs sbatch" in done.stdout + done.stderr
    assert "login node" in done.stdout + done.stderr


def test_nothing_is_left_of_a_cluster_whose_test_was_killed(installed: None) -> None:
    code = f"""
import sys, tempfile, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from slurm_cluster import SlurmCluster
with SlurmCluster.start(Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))/ "cluster") as cluster:
    cluster.call("sbatch", "--output", "/dev/null", "--wrap", "sleep 1000")
    while not cluster.jobs():
        time.sleep(0.2)
    print(cluster.keeper.pid, cluster.folder, flush=True)
    time.sleep(1000)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    keeper, folder = child.stdout.readline().split()
    ours = [psutil.Process(int(keeper)), *psutil.Process(int(keeper)).children(recursive=True)]
    assert len(ours) >= 6
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(ours, timeout=60)
    assert alive == []
    subprocess.run(["rm", "-r", str(Path(folder).parent)], check=True)
