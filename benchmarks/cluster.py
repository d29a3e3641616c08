"""What batch jobs cost besides their work: on a Slurm of two virtual nodes on this machine.

    python benchmarks/cluster.py            # four small spectra, alone and in one batch job
    python benchmarks/cluster.py --figure   # Figure 2 of the paper, here and on the cluster

Needs Debian's slurm-wlm and munge, and the extra [slurm]. Results are in docs/cluster.md.
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

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tests/cluster"))

from cluster_project import OnCluster, configure, one_training
from slurm_cluster import SlurmCluster
from small_project import REPOSITORY, SOURCES, Project, make_project

FIGURE = "figures/fig2.pdf"
PROFILE = ("--workflow-profile", "profiles/slurm")


def compare_groups(cluster: SlurmCluster, folder: Path) -> None:
    """Compute four spectra of a small network: as four batch jobs, and as one."""
    config = one_training(60, ["hessian", "ggn"])
    experiment = config["experiments"]["one"]
    experiment["training"] |= {"checkpoint_every": 60, "record_every": 20}
    experiment["spectra"]["steps"] = "all"
    project = make_project(folder / "project")
    configure(project, config)
    project.snakemake("training")
    targets = [
        f"results/spectra/one/seed0/step{step}_{matrix}.parquet"
        for step in (0, 60)
        for matrix in ("hessian", "ggn")
    ]
    for size in (1, 4):
        copy = project.copy_to(folder / f"groups_of_{size}")
        report(
            cluster,
            copy,
            f"groups of {size}",
            "--group-components",
            f"spectra={size}",
            "--",
            *targets,
        )


def report(cluster: SlurmCluster, project: Project, name: str, *arguments: str) -> None:
    """Run Snakemake on the cluster, and print where the time went."""
    submitted: dict[str, float] = {}
    known: dict[str, float] = {}
    environment = OnCluster(project, cluster).environment()
    before = {*(project.folder / "logs").rglob("*.log")}
    start = time.perf_counter()
    with subprocess.Popen(
        ["snakemake", *PROFILE, *arguments], cwd=project.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            now = time.perf_counter() - start
            if found := re.search(r"Job (\S+) has been submitted with SLURM jobid (\d+)", line):
                submitted[found[2]] = now
            if re.search(r"Finished (group )?job", line):
                known[str(len(known))] = now
    wall = time.perf_counter() - start
    assert process.returncode == 0, "".join(lines)
    paths = [path for path in (project.folder / "logs").rglob("*.log") if path not in before]
    logs = "".join(path.read_text() for path in paths)
    own = [float(text) for text in re.findall(r"took ([\d.]+) s of wall", logs)]
    ran = [_seconds(cluster.call("scontrol", "show", "job", number)) for number in submitted]
    print(
        f"{name}: {len(submitted)} batch jobs; {wall:.0f} s in all, {min(submitted.values()):.0f} "
        f"to the first submission, {max(known.values()) - min(submitted.values()):.0f} from there "
        f"to the last result; batch jobs ran {sum(ran):.0f} s together, of which their jobs "
        f"{sum(own):.1f} ({len(own)} logs)",
        flush=True,
    )


def _seconds(job: str) -> float:
    found = re.search(r"RunTime=(?:(\d+)-)?(\d+):(\d+):(\d+)", job)
    assert found is not None, job
    days, hours, minutes, seconds = (int(text or 0) for text in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def compare_figure(cluster: SlurmCluster, folder: Path) -> None:
    """Make Figure 2 at full size with two cores, and on two nodes with two cores each."""
    projects = {}
    for name in ("here", "cluster"):
        projects[name] = Project(folder / name)
        for source in [*SOURCES, "config.yaml", "statements.yaml", "data"]:
            path = REPOSITORY / source
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            (folder / name).mkdir(exist_ok=True)
            copy(path, folder / name / source)
    start = time.perf_counter()
    projects["here"].snakemake(FIGURE)
    print(f"{FIGURE} with two cores: {time.perf_counter() - start:.0f} s", flush=True)
    report(cluster, projects["cluster"], FIGURE, FIGURE)
    assert projects["here"].read(FIGURE) == projects["cluster"].read(FIGURE)


def main() -> None:
    """Start a cluster, and print a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"load average before: {os.getloadavg()[0]:.1f}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as folder,
        SlurmCluster.start(Path(folder) / "cluster") as cluster,
    ):
        (compare_figure if arguments.figure else compare_groups)(cluster, Path(folder))
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
