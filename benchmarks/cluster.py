"""What batch jobs cost besides their work: on a Slurm of two virtual nodes on this machine.

    python benchmarks/cluster.py            # eight small spectra, one by one and in one batch job
    python benchmarks/cluster.py --figure   # Figure 2 of the paper at full size

Each is compared with a run of as many cores without Slurm, in turns; whatever they make has to be
equal to the last byte. Needs Debian's slurm-wlm and munge, and the extra [slurm]. The tables are in
benchmarks/cluster.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tests/cluster"))

from cluster_project import OnCluster, configure, one_training
from slurm_cluster import NODES, SlurmCluster
from small_project import SOURCES, Project, copy_of_repository, make_project

FIGURE = "figures/fig2.pdf"
PROFILE = ("--workflow-profile", "profiles/slurm")
HERE = ("--cores", str(len(NODES)))  # one core for each of the nodes, and here as many
NUM_SPECTRA = 8
HEADER = (
    "| run | batch jobs | wall time | to the first submission | in batch jobs | their work |"
    "\n|---|---:|---:|---:|---:|---:|"
)


class Times(NamedTuple):
    """Where the time of a run went, in seconds.

    Attributes
    ----------
    wall : float
    first_submission : float
        From the start of Snakemake; NaN here.
    batch_jobs : float
        How long all of them ran, as Slurm says.
    work : float
        Of the jobs in them, without the start of Python, as their logs say.
    num_batch_jobs : int
    """

    wall: float
    first_submission: float
    batch_jobs: float
    work: float
    num_batch_jobs: int


def measure(cluster: SlurmCluster, project: Project, *arguments: str) -> Times:
    """Run Snakemake, on the cluster if it is given the profile."""
    submitted: dict[str, float] = {}
    before = {*(project.folder / "logs").rglob("*.log")}
    start = time.perf_counter()
    with subprocess.Popen(
        ["snakemake", *arguments], cwd=project.folder, text=True,
        env=OnCluster(project, cluster).environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"has been submitted with SLURM jobid (\d+)", line):
                submitted[found[1]] = time.perf_counter() - start
    wall = time.perf_counter() - start
    assert process.returncode == 0, "".join(lines)
    paths = [path for path in (project.folder / "logs").rglob("*.log") if path not in before]
    logs = "".join(path.read_text() for path in paths)
    work = [float(text) for text in re.findall(r"took ([\d.]+) s of wall", logs)]
    ran = [_seconds(cluster.call("scontrol", "show", "job", number)) for number in submitted]
    first = min(submitted.values(), default=float("nan"))
    return Times(wall, first, sum(ran), sum(work), len(submitted))


def _seconds(job: str) -> float:
    found = re.search(r"RunTime=(?:(\d+)-)?(\d+):(\d+):(\d+)", job)
    assert found is not None, job
    days, hours, minutes, seconds = (int(text or 0) for text in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def compare(
    cluster: SlurmCluster,
    folder: Path,
    project: Project,
    runs: dict[str, tuple[str, ...]],
    repeats: int,
) -> None:
    """Make something in several ways, in turns, and print a row of the table for each way."""
    found: dict[str, list[Times]] = {name: [] for name in runs}
    before, files = made(project), None
    for repeat in range(repeats):
        for number, (name, arguments) in enumerate(runs.items()):
            copy = project.copy_to(folder / f"run{repeat}_{number}")
            found[name].append(measure(cluster, copy, *arguments))
            new = {path: text for path, text in made(copy).items() if path not in before}
            files = new if files is None else files
            assert {*new} == {*files}, {*new} ^ {*files}
            assert not (other := [path for path in new if new[path] != files[path]]), other
            shutil.rmtree(copy.folder)
            print(f"{name}: {found[name][-1]}, load {os.getloadavg()[0]:.1f}", flush=True)
    assert files
    print(f"\n{len(files)} files, equal to the last byte in all runs\n\n{HEADER}")
    for name, times in found.items():
        columns = (str(times[0].num_batch_jobs), *map(_spread, list(zip(*times, strict=True))[:4]))
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


def made(project: Project) -> dict[str, bytes]:
    """Everything that a run has made."""
    return {
        str(path.relative_to(project.folder)): path.read_bytes()
        for name in ("results", "figures", "tables", "metrics")
        for path in (project.folder / name).rglob("*")
        if path.is_file()
    }


def _spread(seconds: tuple[float, ...]) -> str:
    """The median, and the least and the largest."""
    if any(number != number for number in seconds):
        return ""
    return f"{median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"


def compare_groups(cluster: SlurmCluster, folder: Path, repeats: int) -> None:
    """Compute spectra of a small network: here, in a batch job each, and in one."""
    config = one_training(NUM_SPECTRA // 2 - 1, ["hessian", "ggn"], num_records=1)
    experiment = config["experiments"]["one"]
    experiment["training"] |= {"checkpoint_every": 1, "record_every": 1}
    experiment["spectra"]["steps"] = "all"
    trained = make_project(folder / "trained")
    configure(trained, config)
    trained.run("snakemake", *HERE, "training")
    targets = [
        f"results/spectra/one/seed0/step{step}_{matrix}.parquet"
        for step in range(NUM_SPECTRA // 2)
        for matrix in ("hessian", "ggn")
    ]
    runs = {"here, two cores": (*HERE, "--", *targets)}
    for size in (1, NUM_SPECTRA // 2, NUM_SPECTRA):
        groups = ("--group-components", f"spectra={size}")
        runs[f"groups of {size}"] = (*PROFILE, *groups, "--", *targets)
    compare(cluster, folder, trained, runs, repeats)


def compare_figure(cluster: SlurmCluster, folder: Path, repeats: int) -> None:
    """Make Figure 2 at full size with two cores, and on two nodes with a core each."""
    runs = {"here, two cores": (*HERE, FIGURE), "two nodes with a core each": (*PROFILE, FIGURE)}
    compare(cluster, folder, paper_project(folder / "paper"), runs, repeats)


def paper_project(folder: Path) -> Project:
    """Make a copy of the paper's project, in which nothing is built."""
    folder.mkdir()
    copy_of_repository([*SOURCES, "config.yaml", "statements.yaml", "data"], folder)
    return Project(folder)


def main() -> None:
    """Start a cluster, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"load average before: {os.getloadavg()[0]:.1f}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as folder,
        SlurmCluster.start(Path(folder) / "cluster", cores_of_node=1) as cluster,
    ):
        part = compare_figure if arguments.figure else compare_groups
        part(cluster, Path(folder), arguments.repeats)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
