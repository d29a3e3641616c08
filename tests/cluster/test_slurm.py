"""The workflow on a real Slurm of two virtual nodes, through everything that happens to jobs there.

`make test-cluster` runs it: some minutes. Several processes take the tests in this order, and each
has the next one with it: so the longest come first, and each is followed by one that takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cluster_page import commands_of_page
from cluster_project import OnCluster, Run, configure, one_network, one_training
from slurm_cluster import NODES, SlurmCluster
from small_project import Project, make_project

NUM_STEPS = 20_000
TRAINING = f"results/checkpoints/one/seed0/step{NUM_STEPS}.safetensors"
TRAINED = one_training(NUM_STEPS, ["hessian"])
LOG = "logs/train/one_seed0.log"
DENSITY = "results/densities/saved/seed0/step0_hessian_network.parquet"
RULE = "estimate_density"


@pytest.fixture
def on_cluster(cluster: SlurmCluster, tmp_path: Path) -> Iterator[OnCluster]:
    """A project that has nothing, on a cluster that does nothing."""
    with OnCluster.new(cluster, tmp_path / "project", TRAINED) as found:
        yield found


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], bytes]:
    """Make the end of the training without a cluster, once for all processes of pytest."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def make() -> bytes:
        with (folder / "trained.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not (folder / "trained").exists():
                project = make_project(folder / "trained")
                configure(project, TRAINED)
                project.snakemake(TRAINING)
        return Project(folder / "trained").read(TRAINING)

    return make


def progress(on_cluster: OnCluster) -> tuple[int, int]:
    """The step that the last job of the training began with, and its last record; -1 for none."""
    project = on_cluster.project
    log = project.folder / LOG
    begun = re.search(rf"(\d+)/{NUM_STEPS}", log.read_text()) if log.exists() else None
    reached = -1
    # A record counts when the history lists it, which is written after its file.
    for path in project.folder.glob(".hesspipe/training/*/history.json"):
        with contextlib.suppress(FileNotFoundError):  # the training is over
            reached = max(map(int, json.loads(path.read_bytes())["checkpoints"]))
    return -1 if begun is None else int(begun[1]), reached


def trainings(cluster: SlurmCluster) -> Iterator[psutil.Process]:
    """The processes that train now."""
    for node in NODES:
        for process in cluster.processes(node):
            with contextlib.suppress(psutil.Error):
                if any("train.py" in word for word in process.cmdline()):
                    yield process


def wait_for_training(on_cluster: OnCluster, run: Run, reached: int = 0) -> tuple[str, str]:
    """Wait until a job goes on from a step, and hold it there; return the batch job and its node.

    What is held makes no step until it gets a signal, as it does when Slurm ends it: so no machine
    is so fast that the training is over before anything has happened to it.
    """

    def goes_on() -> bool:
        first, last = progress(on_cluster)
        return first >= reached and last > reached

    on_cluster.wait_until(goes_on, run)
    for process in trainings(on_cluster.cluster):
        process.suspend()
    on_cluster.wait_until(lambda: len(on_cluster.cluster.jobs()) == 1, run)
    ((job, node),) = on_cluster.cluster.jobs().items()
    return job, node


def wait_for_end(on_cluster: OnCluster, run: Run, job: str, node: str) -> int:
    """Wait until a batch job has left its node; return the step that it has reached."""
    on_cluster.wait_until(lambda: on_cluster.cluster.jobs().get(job) != node, run)
    _, reached = progress(on_cluster)
    assert 0 < reached < NUM_STEPS
    return reached


def _close(on_cluster: OnCluster, node: str) -> None:
    on_cluster.cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")


def _cancel(on_cluster: OnCluster, job: str, node: str) -> None:
    """A user cancels the job, and its node takes no others."""
    _close(on_cluster, node)
    on_cluster.cluster.call("scancel", job)


def _end_time(on_cluster: OnCluster, job: str, node: str) -> None:
    """The job's time is over, which Slurm looks at twice a minute; its node takes no others."""
    _close(on_cluster, node)
    # Refused if it is past when Slurm reads it.
    while on_cluster.cluster.call("scontrol", "update", f"jobid={job}", "endtime=now+2").strip():
        pass


def _preempt(on_cluster: OnCluster, job: str, node: str, mode: str = "requeue") -> None:
    """A job of a partition with priority takes the whole node."""
    on_cluster.cluster.call("scontrol", "update", "partition=debug", f"preemptmode={mode}")
    urgent = ("--partition", "urgent", "--nodelist", node, "--exclusive", "--mem", "0")
    sleep = ("--output", "/dev/null", "--job-name", "urgent", "--wrap", "sleep 3600")
    assert on_cluster.cluster.call("sbatch", *urgent, *sleep).startswith("Submitted")


def _preempt_for_good(on_cluster: OnCluster, job: str, node: str) -> None:
    """The same, on a cluster that does not put such jobs into its queue again."""
    _preempt(on_cluster, job, node, "cancel")


def _lose_node(on_cluster: OnCluster, job: str, node: str) -> None:
    on_cluster.cluster.kill_node(node)


def check_goes_on(
    on_cluster: OnCluster, trained: Callable[[], bytes], events: dict[Callable[..., None], bool]
) -> None:
    """Let a training go on at the other node after each event, to equal bits.

    Snakemake submits another batch job after some of the events, and Slurm starts the same again
    after the others.
    """
    run = on_cluster.snakemake(TRAINING)
    job, node = wait_for_training(on_cluster, run)
    trained()  # while the training is held
    for event in events:
        event(on_cluster, job, node)
        reached = wait_for_end(on_cluster, run, job, node)
        job, other = wait_for_training(on_cluster, run, reached)
        assert other != node, event
        on_cluster.cluster.call("scancel", "--name", "urgent")
        on_cluster.cluster.open_node(node)
        node = other
    for process in trainings(on_cluster.cluster):
        process.resume()
    output = run.end()
    assert output.endswith("exit 0"), output
    assert output.count("has been submitted with SLURM jobid") == 1 + sum(events.values())
    assert ("reached the end of its time" in output) == (_end_time in events)
    assert on_cluster.project.read(TRAINING) == trained()


def test_a_training_that_is_preempted_or_loses_its_node_goes_on_to_equal_bits(
    on_cluster: OnCluster, trained: Callable[[], bytes]
) -> None:
    is_submitted = {_preempt_for_good: True, _preempt: False, _lose_node: False}
    check_goes_on(on_cluster, trained, is_submitted)


def test_a_controller_that_is_away_is_waited_for(
    on_cluster: OnCluster, trained: Callable[[], bytes]
) -> None:
    run = on_cluster.snakemake(TRAINING)
    wait_for_training(on_cluster, run)
    on_cluster.cluster.kill_controller()
    on_cluster.wait_until(lambda: "Slurm does not answer" in run.output, run)
    for process in trainings(on_cluster.cluster):
        process.resume()
    expected = trained()
    on_cluster.cluster.start_controller()
    output = run.end()
    assert output.endswith("exit 0"), output
    assert "Slurm answers again" in output
    assert output.count("has been submitted with SLURM jobid") == 1
    assert on_cluster.project.read(TRAINING) == expected


def test_a_machine_without_slurm_is_told_where_to_go(on_cluster: OnCluster, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "uname", "which"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{tools}"
    command = (sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", TRAINING)
    output = on_cluster.start(*command, env=on_cluster.environment() | {"PATH": path}).end()
    assert not output.endswith("exit 0")
    assert "--executor slurm needs sbatch" in output
    assert "login node" in output


def test_a_training_that_is_cancelled_or_reaches_its_time_goes_on_to_equal_bits(
    on_cluster: OnCluster, trained: Callable[[], bytes]
) -> None:
    check_goes_on(on_cluster, trained, {_cancel: True, _end_time: True})


def test_a_misspelled_partition_is_named_before_any_job(on_cluster: OnCluster) -> None:
    configure(on_cluster.project, one_network(processes=1))
    run = on_cluster.snakemake(
        "--retries", "0", "--default-resources", "slurm_partition=debuq", "--", DENSITY
    )
    output = run.end()
    says = "slurm_partition must be one of debug, short, urgent, got 'debuq' (did you mean debug?)"
    assert says in output
    assert "has been submitted with SLURM jobid" not in output
    assert not output.endswith("exit 0")


def test_commands_of_the_page_build_what_a_local_run_builds(
    on_cluster: OnCluster, tmp_path: Path
) -> None:
    project = on_cluster.project
    configure(project, one_training(200, ["hessian", "ggn"]))
    local = project.copy_to(tmp_path / "local")
    runs = [on_cluster.start(command, shell=True) for command in commands_of_page()[:1]]
    assert runs[0].end().endswith("exit 0")
    runs += [on_cluster.start(command, shell=True) for command in commands_of_page()[1:]]
    local.snakemake()
    printed = [run.end() for run in runs]
    assert all(text.endswith("exit 0") for text in printed), printed
    # One batch job for the training and one for both spectra; the rest is local.
    assert "".join(printed).count("has been submitted with SLURM jobid") == 2
    made = [
        path
        for folder in ("results", "figures")
        for path in (local.folder / folder).rglob("*")
        if path.is_file()
    ]
    assert len(made) > 8
    for path in made:
        name = str(path.relative_to(local.folder))
        assert project.read(name) == path.read_bytes(), name
    assert project.is_finished()


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
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        number, folder = child.stdout.readline().split()
        keeper = psutil.Process(int(number))
        ours = [keeper, *keeper.children(recursive=True)]
        child.kill()
    assert len(ours) >= 6
    psutil.wait_procs(ours)
    subprocess.run(["rm", "-r", str(Path(folder).parent)], check=True)


def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(
    on_cluster: OnCluster, trained: Callable[[], bytes]
) -> None:
    run = on_cluster.snakemake(TRAINING)
    wait_for_training(on_cluster, run)
    # Impatience, before Snakemake has heard the first one, and while it cancels.
    for _ in range(2):
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.02)
    on_cluster.wait_until(lambda: "Terminating processes on user request" in run.output, run)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGINT)
    assert not run.end().endswith("exit 0")
    on_cluster.cluster.wait_until_idle()
    _, reached = progress(on_cluster)
    assert 0 < reached < NUM_STEPS
    output = on_cluster.snakemake(TRAINING).end()
    assert output.endswith("exit 0"), output  # no lock is left
    first, _ = progress(on_cluster)
    assert first >= reached
    assert on_cluster.project.read(TRAINING) == trained()


def test_a_job_of_several_processes_runs_on_both_nodes_as_on_one_machine(
    on_cluster: OnCluster, tmp_path: Path
) -> None:
    project = on_cluster.project
    configure(project, one_network(processes=2))
    local = project.copy_to(tmp_path / "local")
    run = on_cluster.snakemake("--set-resources", f"{RULE}:nodes=2", "--", DENSITY)
    seen = set()

    def are_on_both_nodes() -> bool:
        for node in NODES:
            for process in on_cluster.cluster.processes(node):
                with contextlib.suppress(psutil.Error):
                    if "hesspipe.experiments.processes" in process.cmdline():
                        seen.add(node)
        return seen == {*NODES}

    on_cluster.wait_until(are_on_both_nodes, run)
    local.snakemake(DENSITY)
    output = run.end()
    assert output.endswith("exit 0"), output
    (job,) = re.findall(r"SLURM jobid (\d+)", output)
    assert {"NumNodes=2", "NumTasks=2"} <= {*on_cluster.job(job).split()}
    assert project.read(DENSITY) == local.read(DENSITY)


def test_a_job_killed_for_memory_says_so_and_is_tried_with_more(on_cluster: OnCluster) -> None:
    configure(on_cluster.project, one_network(processes=1))
    attempts = f"{RULE}:mem_mb=150+2000*(attempt-1)"
    partition = ("--default-resources", "slurm_partition=short")
    output = on_cluster.snakemake(*partition, "--set-resources", attempts, "--", DENSITY).end()
    assert output.endswith("exit 0"), output
    jobs = [on_cluster.job(number) for number in re.findall(r"SLURM jobid (\d+)", output)]
    assert [re.findall(r"MinMemoryNode=(\w+)", text) for text in jobs] == [["150M"], ["2150M"]]
    assert "exceeded its memory" in output
    # The forecast is an hour; this partition would never start a job that asks for it.
    assert all("TimeLimit=00:05:00" in text for text in jobs)
    assert "get 5: their partition ends batch jobs after its limit" in output


@pytest.mark.parametrize(
    ("option", "reason"),
    [("--job-name=mine", "The --job-name option is not allowed"), ("--reservation=no", "sbatch")],
)
def test_a_group_that_is_refused_ends_the_run_with_the_reason(
    on_cluster: OnCluster, option: str, reason: str
) -> None:
    # The executor refuses the first, and Slurm the second.
    extra = ("--default-resources", f"slurm_extra='{option}'")
    output = on_cluster.snakemake("--retries", "0", *extra, "--", TRAINING).end()
    assert not output.endswith("exit 0")
    assert reason in output
    assert "reservation is invalid" in output or option == "--job-name=mine"


def test_a_slurm_without_accounts_takes_any(on_cluster: OnCluster) -> None:
    configure(on_cluster.project, one_network(processes=1))
    run = on_cluster.snakemake(
        "--retries", "0", "--default-resources", "slurm_account=nobody", "--", DENSITY
    )
    output = run.end()
    assert "Proceeding without account validation" in output
    assert output.endswith("exit 0")


def test_a_job_that_slurm_took_without_an_answer_does_not_stay_beside_the_next(
    on_cluster: OnCluster, tmp_path: Path
) -> None:
    configure(on_cluster.project, one_network(processes=1))
    # The first submission, held so that it is there for longer than the pause before the next.
    path = on_cluster.environment()["PATH"]
    (tmp_path / "sbatch").write_text(
        f"""#!/bin/sh
export PATH={shlex.quote(path)}
mkdir {tmp_path}/once 2>/dev/null || exec sbatch "$@"
sbatch --hold "$@" >/dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""
    )
    (tmp_path / "sbatch").chmod(0o755)
    environment = on_cluster.environment() | {"PATH": f"{tmp_path}{os.pathsep}{path}"}
    command = ("snakemake", "--workflow-profile", "profiles/slurm", "--retries", "0")
    output = on_cluster.start(*command, "--", DENSITY, env=environment).end()
    assert output.endswith("exit 0"), output
    assert "Slurm takes no batch job now" in output
    (taken,) = re.findall(r"SLURM jobid (\d+)", output)
    states = re.findall(
        r"JobId=(\d+).*?JobState=(\w+)",
        on_cluster.cluster.call("scontrol", "--oneliner", "show", "job"),
    )
    assert states[-2:] == [(str(int(taken) - 1), "CANCELLED"), (taken, "COMPLETED")]


def test_a_job_that_waits_and_never_has_enough_memory_says_what_to_do(
    on_cluster: OnCluster,
) -> None:
    configure(on_cluster.project, one_network(processes=1))
    for node in NODES:
        on_cluster.cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=x")
    few = ("--retries", "0", "--set-resources", f"{RULE}:mem_mb=150")
    run = on_cluster.snakemake(*few, "--", DENSITY)
    says = "no node of partition debug takes jobs now"
    on_cluster.wait_until(lambda: says in run.output, run)
    for node in NODES:
        on_cluster.cluster.open_node(node)
    output = run.end()
    assert not output.endswith("exit 0")
    assert "exceeded its memory" in output
    assert "mem_mb" in output.split("exceeded its memory")[1]
