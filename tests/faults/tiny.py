"""A project with every kind of stored file, its jobs one by one, and folders to damage."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import pickle
import runpy
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import forks
import numpy as np
import yaml
from repository import REPOSITORY, copy_of_repository

PROJECT = REPOSITORY / "tests/projects/faults"
SOURCES = ["Snakefile", "rules", "report", "scripts", "hesspipe", "profiles", "envs"]
_LOCAL_ORIGINS = Path(".hesspipe/origins")
_CODE = Path(".hesspipe/code")  # written for every job that a reading of the rules plans
_SET_ASIDE = Path(".hesspipe/set_aside")


@dataclass(frozen=True)
class Job:
    """A job of the graph.

    Attributes
    ----------
    name : str
        Its rule, and the first output.
    kind : str
        The script that it runs.
    inputs, outputs : list of str
        Paths relative to the project; of the inputs, those that jobs make or the user gives, not
        the code.
    pickled : bytes
        The object `snakemake` of its script.
    """

    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]
    pickled: bytes

    def __str__(self) -> str:
        return self.name

    def run(self, folder: Path, **options: Any) -> forks.Ended:
        """Run it in a folder as Snakemake does."""
        return self.start(folder, **options).wait()

    def start(
        self, folder: Path, *, before: Callable[[], None] | None = None, **options: Any
    ) -> forks.Process:
        """Start it in a folder as Snakemake does, which removes old outputs first."""
        with contextlib.suppress(OSError):  # Snakemake's own error, on a disk that refuses
            for path in self.outputs:
                (folder / path).unlink(missing_ok=True)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
        return forks.Process(partial(_run_job, self, before), folder, **options)


@dataclass(frozen=True)
class Workshop:
    """A copy of the code, the project built with it, and folders with the inputs of one job.

    Attributes
    ----------
    root : Path
        Holds `source`, `finished` and `cases`.
    jobs : list of Job
        In the order in which they depend on each other.
    """

    root: Path
    jobs: list[Job]

    @property
    def finished(self) -> Path:
        """The project with every result."""
        return self.root / "finished"

    def folder(self, name: str) -> Path:
        """Make a folder with the user's files only."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        copy_project(folder)
        return folder

    def before(self, job: Job, name: str, finished: Path | None = None) -> Path:
        """Make a folder with what a job reads, and nothing of what it writes."""
        folder = self.folder(name)
        for path in job.inputs:
            copy_result(path, finished or self.finished, folder)
        return folder


def make_source(root: Path) -> Path:
    """Copy the code, so that the repository can be edited meanwhile."""
    source = root / "source"
    copy_of_repository(SOURCES, source)
    return source


# For the short form: what these need, and nothing else.
_SHORT = (
    "results/spectra/one/seed0/step6_hessian.parquet",
    "results/eigenpairs/user/seed0/step2_hessian.parquet",
    "results/densities/saved/seed0/step0_hessian_network.parquet",
    "tables/outlier_counts.csv",
)


def make_workshop(
    root: Path, *, older: bool = False, short: bool = False, only: list[str] | None = None
) -> Workshop:
    """List the jobs and run each once.

    Parameters
    ----------
    root : Path
        With the code in `source`.
    older : bool
        Build an older version of the project, whose files have the same names, into `older`.
    short : bool
        Only a few jobs.
    """
    folder = root / ("older" if older else "finished")
    copy_project(folder)
    publish(folder)
    if older:
        config = folder / "config.yaml"
        text = config.read_text(encoding="utf-8").replace("step_size: 0.1", "step_size: 0.05")
        text = text.replace("cluster_std: 1.0", "cluster_std: 1.5")
        config.write_text(text, encoding="utf-8")
    listed = root / "jobs.pickle"
    ended = forks.run(partial(_list_jobs, root / "source/Snakefile", listed), folder, record=True)
    assert ended.code == 0, ended.line
    forks.preload(ended.modules)
    jobs = pickle.loads(listed.read_bytes())
    workshop = Workshop(root, _needed(jobs) if short else jobs)
    if only is not None:
        workshop = Workshop(root, [job for job in jobs if job.name in only])
    for job in workshop.jobs:
        ended = job.run(folder, record=True)
        assert ended.code == 0, f"{job.name}: {ended.line}"
        forks.preload(ended.modules)
    return workshop


def publish(folder: Path) -> None:
    """Let the project's digits and photographs be the published ones, in this process."""
    from hesspipe.data import cifar10_files, mnist

    for path in (folder / "data/mnist").iterdir():
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        mnist.CONTENTS[path.name.removesuffix(".gz")] = hashlib.md5(content).hexdigest()
    for path in (folder / "data/cifar10").iterdir():
        cifar10_files.CONTENTS[path.name] = hashlib.md5(path.read_bytes()).hexdigest()


def copy_project(folder: Path) -> None:
    """Copy the user's files, the generated ones included."""
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    _write_tensors(folder)
    _write_digits(folder / "data/mnist")
    _write_photographs(folder / "data/cifar10")


def copy_result(path: str, source: Path, target: Path) -> None:
    """Copy a file with its time, and its origin records."""
    from hesspipe.workflow.origins import tracked_path

    names = [path, str(_LOCAL_ORIGINS / f"{path}.json")]
    if (source / names[1]).exists():
        names.append(str(tracked_path(path)))
    for name in names:
        if (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def contents(folder: Path, *, set_aside: bool = True) -> dict[str, str]:
    """Digest every file that counts, and name every folder: all but logs and Snakemake's records.

    Local origins count without the times of the files that they describe.

    Parameters
    ----------
    folder : Path
    set_aside : bool
        Count what was set aside.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in ("logs", ".snakemake") or "__pycache__" in name.parts:
            continue
        if name.is_relative_to(_CODE):
            continue
        is_aside = name.is_relative_to(_SET_ASIDE) or ".damaged" in name.name
        if is_aside and not set_aside:
            continue
        if path.is_dir():
            found[f"{name}/"] = ""
            continue
        content = path.read_bytes()
        if name.is_relative_to(_LOCAL_ORIGINS):
            content = json.dumps(json.loads(content)["origin"]).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """Say what differs, in one line; empty if nothing does."""
    missing = sorted(set(expected) - set(found))
    more = sorted(set(found) - set(expected))
    changed = sorted(name for name in set(found) & set(expected) if found[name] != expected[name])
    parts = {"missing": missing, "left over": more, "other bytes in": changed}
    return "; ".join(f"{what} {', '.join(names[:4])}" for what, names in parts.items() if names)


def _needed(jobs: list[Job]) -> list[Job]:
    """The jobs of the short form, in order."""
    wanted = set(_SHORT)
    for job in reversed(jobs):
        if wanted & set(job.outputs):
            wanted |= set(job.inputs)
    return [job for job in jobs if wanted & set(job.outputs)]


class JobError(Exception):
    """What a job that failed has told."""


def _run_job(job: Job, before: Callable[[], None] | None) -> None:
    """Be a job: raise what its log, or its last breath, says."""
    if before is not None:
        before()
    snakemake = pickle.loads(job.pickled)
    script = Path.cwd().parent / "source/scripts" / f"{job.kind}.py"
    try:
        runpy.run_path(str(script), init_globals={"snakemake": snakemake}, run_name="__main__")
    except SystemExit as error:
        if error.code == 0:
            return
        told = error.code
        if not isinstance(told, str):
            told = Path(snakemake.log[0]).read_text(encoding="utf-8").strip()
        is_line = "Traceback (most recent call last)" not in told
        raise JobError(told.splitlines()[-1] if is_line and told else told) from None


def _list_jobs(snakefile: Path, target: Path) -> None:
    """Store the jobs of the project in the current folder."""
    from snakemake.iocontainers import Snakemake

    from hesspipe.workflow.adopt import job_graph, jobs_of

    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    found = []
    with job_graph(str(snakefile), config) as graph:
        for one in jobs_of(graph):
            job, outputs = one.job, one.outputs
            pickled = pickle.dumps(
                Snakemake(
                    job.input._plainstrings(),
                    job.output._plainstrings(),
                    job.params,
                    job.wildcards,
                    job.threads,
                    job.resources,
                    job.log._plainstrings(),
                    {},
                    job.rule.name,
                    None,
                    str(snakefile.parent),
                )
            )
            # Not the code, which lies beside the folder.
            given = sorted({path for path in one.inputs if not path.startswith("..")})
            script = Path(str(job.rule.script)).stem
            found.append(Job(f"{job.rule.name} {outputs[0]}", script, given, outputs, pickled))
    target.write_bytes(pickle.dumps(found))


def _write_tensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def numbers(*shape: int) -> torch.Tensor:
        return torch.arange(float(np.prod(shape))).reshape(shape).sin()

    save_file(
        {"0.weight": numbers(12, 3), "0.bias": numbers(12), "2.weight": numbers(1, 12),
         "2.bias": numbers(1)},
        folder / "state.safetensors",
    )  # fmt: skip
    save_file(
        {"train_inputs": numbers(12, 3).double(), "train_targets": numbers(12, 1).double()},
        folder / "samples.safetensors",
    )


def _write_digits(folder: Path) -> None:
    """Write MNIST's four files with few digits, two of them compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for half, size in {"train": 20, "t10k": 5}.items():
        images = random.integers(0, 256, (size, 28, 28), np.uint8).tobytes()
        labels = random.integers(0, 10, size, np.uint8).tobytes()
        files = {
            f"{half}-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, size, 28, 28) + images,
            f"{half}-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, size) + labels,
        }
        for name, content in files.items():
            if half == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)


def _write_photographs(folder: Path) -> None:
    """Write CIFAR-10's six files with few photographs."""
    from hesspipe.data.cifar10_files import TEST_FILES, TRAIN_FILES

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name in (*TRAIN_FILES, *TEST_FILES):
        records = random.integers(0, 256, (2, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
