"""What jobs ask for: enough for what they were measured to take, and more at each attempt."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_project import REPOSITORY, Project, make_project, small_config
from small_project import SMALL as SMALL_FOLDER

from hesspipe.config.expansion import expand
from hesspipe.config.loading import load_config
from hesspipe.config.results import ResultKind
from hesspipe.config.schema import Config
from hesspipe.workflow import executors, user_networks
from hesspipe.workflow.executors import Executor
from hesspipe.workflow.needs import needs
from hesspipe.workflow.resources import ON_A_GPU, JobResources
from hesspipe.workflow.slurm import Partition


def typed(raw: dict[str, Any]) -> Config:
    return Config.model_validate(expand(raw, SMALL_FOLDER).raw)


PAPER = load_config(REPOSITORY / "config.yaml")
SMALL = typed(small_config())
SLURM = yaml.safe_load((REPOSITORY / "profiles/slurm/profile.yaml").read_text())
BATCH_JOBS = ON_A_GPU | {ResultKind.RANDOM_MATRICES}
MIB = 2**20
# Peaks of memory (MiB) and seconds of one core, the largest of their kinds in the paper, of jobs
# on the machine whose numbers are in docs/results.md.
MEASURED = [
    (ResultKind.SPECTRA, "mnist_width70", 3743, 329),
    (ResultKind.SPECTRA, "mnist_sb", 1083, 76),
    (ResultKind.SPECTRA, "clusters_sgd_relu_k50_cov1", 1226, 15),
    (ResultKind.CHECKPOINTS, "mnist_lb", 500, 96),
    (ResultKind.CHECKPOINTS, "mnist_basins_lb", 457, 106),
    (ResultKind.EIGENPAIRS, "mnist_basins_sb", 626, 42),
    (ResultKind.DIRECTIONS, "mnist_sb", 946, 138),
    (ResultKind.LANDSCAPE, "mnist_basins_sb", 465, 27),
    (ResultKind.RANDOM_MATRICES, "logistic_fixed_alpha1", 1911, 10),
    (ResultKind.DATASETS, "mnist_4000", 483, 5),
]


@pytest.mark.parametrize(("kind", "owner", "mib", "seconds"), MEASURED)
def test_amount_suffices_for_what_the_paper_was_measured_to_take(
    kind: ResultKind, owner: str, mib: int, seconds: int
) -> None:
    amount = JobResources(PAPER, 0).amount(kind, owner)
    assert 1.4 * mib < amount.mem_mb < 6000
    assert 4 * seconds < 60 * amount.runtime < 5000


def test_amount_is_above_the_forecast_of_every_entry() -> None:
    for config in (PAPER, SMALL):
        ours = JobResources(config, 0)
        for need in needs(config):
            amount = ours.amount(need.kind, need.owner)
            assert amount.mem_mb * MIB > need.memory_bytes + 500 * MIB, need


def test_amount_grows_with_the_matrix_the_data_and_the_steps() -> None:
    config = small_config()
    before = JobResources(typed(config), 0)
    config["datasets"]["clusters_k{k}"] |= {"num_train": 300_000}
    config["models"]["relu"] |= {"hidden_widths": [2000]}
    config["trainings"]["gd"] |= {"num_steps": 200_000, "checkpoint_every": 200_000}
    config["experiments"]["clusters_gd_k2"]["spectra"]["steps"] = "ends"
    after = JobResources(typed(config), 0)
    for kind in (ResultKind.SPECTRA, ResultKind.CHECKPOINTS):
        small, large = (one.amount(kind, "clusters_gd_k2") for one in (before, after))
        assert large.mem_mb > small.mem_mb + 20
        assert large.runtime > small.runtime


def test_unknown_networks_ask_for_more_than_small_ones() -> None:
    ours = JobResources(SMALL, 0)
    unknown = ours.amount(ResultKind.DENSITIES, "user")
    assert unknown.mem_mb > ours.amount(ResultKind.SPECTRA, "clusters_gd_k2").mem_mb + 2000
    assert unknown.runtime >= 60


# Of a user's network with P parameters, as many vectors or rows as each job holds at least.
HELD = {
    ResultKind.CHECKPOINTS: lambda number: 3 * number * 8,
    ResultKind.SPECTRA: lambda number: 2 * number**2 * 8,
    ResultKind.DENSITIES: lambda number: 8 * number * 8,
    ResultKind.EIGENPAIRS: lambda number: 60 * number * 8,
}


@pytest.mark.parametrize("kind", HELD)
def test_user_networks_ask_for_what_their_parameters_take_where_it_is_counted(
    monkeypatch: pytest.MonkeyPatch, kind: ResultKind
) -> None:
    number = 30_000 if kind is ResultKind.SPECTRA else 50_000_000
    monkeypatch.setattr(user_networks, "num_parameters", lambda function, arguments: number)
    unknown = JobResources(SMALL, 0).amount(kind, "user")
    counted = JobResources(SMALL, 0, counts_parameters=True).amount(kind, "user")
    assert (counted.mem_mb - unknown.mem_mb) * MIB > 1.4 * HELD[kind](number)
    assert counted.mem_mb_of_process == counted.mem_mb
    # A network that cannot be built here is reported by its job.
    monkeypatch.setattr(user_networks, "num_parameters", lambda function, arguments: None)
    assert JobResources(SMALL, 0, counts_parameters=True).amount(kind, "user") == unknown


@pytest.mark.parametrize("gpus", [0, 1])
def test_of_names_a_gpu_only_where_one_is_used_and_asked_for(gpus: int) -> None:
    ours = JobResources(SMALL, gpus)
    for kind in ResultKind:
        assert ("gpu" in ours.of(kind)) == (gpus == 1 and kind in ON_A_GPU)


@pytest.mark.parametrize("name", ["mem_mb", "runtime"])
def test_of_multiplies_by_the_attempt(name: str) -> None:
    ask = JobResources(SMALL, 0).of(ResultKind.SPECTRA)[name]
    first = getattr(JobResources(SMALL, 0).amount(ResultKind.SPECTRA, "clusters_gd_k2"), name)
    assert [ask(["clusters_gd_k2", "0"], attempt) for attempt in (1, 2, 3)] == [
        first, 2 * first, 3 * first,
    ]  # fmt: skip


def test_of_asks_for_no_more_time_than_there_is_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    first = JobResources(SMALL, 0).amount(ResultKind.SPECTRA, "clusters_gd_k2").runtime

    def asking(longest: int, kind: ResultKind = ResultKind.SPECTRA) -> Callable[..., int]:
        """What jobs ask for where groups of two have twice the time."""
        known = {"short": Partition("short", True, 2 * longest, is_open=True)}
        monkeypatch.setattr(executors, "partitions", lambda: known)
        executor = Executor("slurm", group_sizes={"spectra": 2})
        return JobResources(SMALL, 0, executor, told.append).of(kind)["runtime"]

    ask = asking(2 * first)
    assert [ask(["clusters_gd_k2"], attempt) for attempt in (1, 2, 3)] == [
        first, 2 * first, 2 * first,
    ]  # fmt: skip
    assert told == []
    # What is made on the login node has all the time it takes.
    assert asking(1, ResultKind.DATASETS)(["clusters_k2"], 3) == 30
    assert told == []
    ask = asking(first - 1)
    assert {ask(["clusters_gd_k2"], attempt) for attempt in (1, 2, 3)} == {first - 1}
    (line,) = told
    assert f"ask for {first} minutes or more" in line
    assert f"get {first - 1}" in line


def test_groups_are_those_of_the_profile_and_only_for_jobs_of_other_machines() -> None:
    def groups(name: str) -> set[str | None]:
        return {JobResources(SMALL, 0, Executor(name)).group(kind) for kind in BATCH_JOBS}

    sizes = {part.split("=")[0] for part in SLURM["group-components"]}
    assert groups("slurm") == {None, *sizes}
    assert groups("local") == groups("dryrun") == {None}


def test_of_asks_for_what_a_whole_basis_takes_where_less_would_do() -> None:
    resources = JobResources(PAPER, 0)
    searches = [need for need in needs(PAPER) if need.preferred_bytes > need.memory_bytes]
    assert {need.kind for need in searches} == {
        ResultKind.DENSITIES, ResultKind.EIGENPAIRS, ResultKind.DIRECTIONS,
    }  # fmt: skip
    for need in searches:
        amount = resources.amount(need.kind, need.owner)
        assert amount.mem_mb * MIB > need.preferred_bytes + 1000 * MIB


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("kind", [ResultKind.DENSITIES, ResultKind.EIGENPAIRS])
def test_processes_ask_for_a_network_a_gpu_and_a_task_each(
    kind: ResultKind, is_known: bool
) -> None:
    with_attempts = ("mem_mb", "runtime", "mem_mb_per_cpu")

    def ask(number: int) -> dict[str, Any]:
        config = small_config()
        name = "digits_lb" if is_known else "user"
        plan = dict(config["experiments"][name]["matrix_free"], processes=number)
        config["experiments"][name]["matrix_free"] = plan
        asked = JobResources(typed(config), 1).of(kind)
        return {
            key: value([name], 1) if key in with_attempts else value([name])
            for key, value in asked.items()
        }

    one, three = ask(1), ask(3)
    # Only the basis, which one process has, is not taken thrice.
    basis = max(
        (need.memory_bytes * 3 / MIB + 1 for need in needs(SMALL)
         if (need.kind, need.owner) == (kind, "digits_lb" if is_known else "user")), default=0,
    )  # fmt: skip
    assert 3 * one["mem_mb"] - 2 * basis <= three["mem_mb"] <= 3 * one["mem_mb"]
    assert (one["gpu"], three["gpu"]) == (1, 3)
    assert (three["tasks"], three["cpus_per_task"], three["tasks_per_gpu"]) == (3, 1, 1)
    assert three["mem_mb_per_cpu"] == one["mem_mb"]  # of whichever process a node gets
    assert one.get("tasks") is one.get("mem_mb_per_cpu") is None


def test_resources_are_no_reason_to_run_again() -> None:
    for profile in Path(REPOSITORY / "profiles").glob("*/*.yaml"):
        triggers = re.search(r"^rerun-triggers: \[(.*)\]", profile.read_text(), flags=re.MULTILINE)
        assert triggers is not None
        assert triggers[1] == "mtime, params, input, software-env"


# Snakemake, which also prints the memory of all jobs of each selection of its scheduler.
_SNAKEMAKE = """
import sys
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

plain_init = JobScheduler.__init__
plain = JobScheduler.update_available_resources

def select(self, *arguments):
    # Dry runs start everything at once; this one selects jobs as a real run does.
    plain_init(self, *arguments)
    self.dryrun = False

def print_selection(self, jobs):
    plain(self, jobs)
    print("SELECTED", *(job.resources.get("mem_mb", "none") for job in jobs if job.rule.script))
    print("NAMES", *{name for job in jobs if job.rule.script for name in job.resources.keys()})

JobScheduler.__init__ = select
JobScheduler.update_available_resources = print_selection
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("resources") / "project")


@pytest.mark.parametrize(("limit", "at_once"), [(16_000, range(5, 16)), (1_500, range(1, 2))])
def test_no_selection_of_a_dry_run_is_above_the_memory_there_is(
    project: Project, limit: int, at_once: range
) -> None:
    options = ("--dry-run", "--cores", "64", "--resources", f"mem_mb={limit}")
    output = project.run(sys.executable, "-c", _SNAKEMAKE, *options)
    selections = [line.split()[1:] for line in re.findall("SELECTED.*", output)]
    jobs = [int(job) for selection in selections for job in selection]
    assert len(jobs) > 60
    # A job that asks for more than there is gets what there is, and runs alone.
    assert max(jobs) <= limit
    assert max(sum(map(int, selection)) for selection in selections) <= limit
    assert max(map(len, selections)) in at_once
    names = {name for line in re.findall("NAMES(.*)", output) for name in line.split()}
    assert {"mem_mb", "runtime"} <= names
    assert "gpu" not in names


def test_a_job_that_cannot_fit_into_the_memory_there_is_is_refused(project: Project) -> None:
    output = project.snakemake("--dry-run", "--resources", "mem_mb=0", check=False)
    assert "of memory, and 0.0 GiB are there" in output
    assert output.endswith("exit 1")
