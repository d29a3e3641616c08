"""The workflow on a real Slurm that keeps accounts, with limits on jobs; see test_slurm.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_project import OnCluster, one_training
from slurm_cluster import SlurmCluster

from hesspipe.workflow.slurm_reasons import advise_on_refusal, advise_on_waiting

TRAINING = "results/checkpoints/one/seed0/step200.safetensors"
BATCH = ("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 1000")
ACCOUNT = ("sacctmgr", "--immediate", "modify", "account", "lab", "set")


@pytest.fixture
def limited(cluster_with_accounts: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, with one job in the queue for an account, and a quality of service with less."""
    call = cluster_with_accounts.call
    call(*ACCOUNT, "MaxSubmitJobs=1")
    call("sacctmgr", "--immediate", "add", "qos", "brief", "set", "MaxWall=5")
    call("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos+=brief")
    yield cluster_with_accounts
    call(*ACCOUNT, "MaxSubmitJobs=-1")


def test_a_run_waits_for_its_limit_and_reads_what_accounts_say_of_cancelled_jobs(
    limited: SlurmCluster, tmp_path: Path
) -> None:
    options = (
        "--slurm-status-command", "sacct", "--default-resources", "slurm_account=lab",
    )  # fmt: skip
    assert limited.call(*BATCH, "--account=lab").strip().isdigit()
    with OnCluster.new(limited, tmp_path / "project", one_training(200, ["hessian"], 8)) as here:
        run = here.snakemake(*options, "--", TRAINING)
        here.wait_until(lambda: "Slurm takes no batch job now" in run.output, run)
        limited.call("scancel", "--me")
        here.wait_until(lambda: "has been submitted with SLURM jobid" in run.output, run)
        limited.call("scancel", "--me")  # "CANCELLED by 0"
        output = run.end()
    assert output.endswith("exit 0"), output
    assert "Slurm takes no batch job now (sbatch: AssocMaxSubmitJobLimit; Job violates" in output
    assert "SLURM status is: 'CANCELLED'" in output
    assert output.count("has been submitted with SLURM jobid") == 2


# What sbatch is asked for, and words of the way out: of a refusal, or of a job that does not start.
REFUSED = {
    "--partition=no": "slurm_partition=NAME", "--account=no": "slurm_account=NAME",
    "--qos=no": "--slurm-qos NAME", "--constraint=no": "sinfo -o '%P %f'",
    "--reservation=no": "--slurm-reservation", "--mem=90000": "RULE:mem_mb=",
    "--gres=gpu:4": "sinfo -o '%P %c %m %G'", "--gres=no:1": "sinfo -o '%P %c %m %G'",
    "--account=lab": "--jobs NUMBER",
}  # fmt: skip
WAITING = {
    # PartitionTimeLimit, or PartitionConfig where another part of Slurm looks at it first.
    "--partition=short --time=30": "see sinfo; to ask for less",
    "--cpus-per-task=9": "RULE:mem_mb=MIB", "--qos=brief --time=30": "will never start",
    "--hold": "scontrol release", "--nodelist=n2": "take no jobs now",
    "--partition=urgent": "take no jobs now",
}  # fmt: skip


def test_refused_and_waiting_jobs_are_explained_as_this_slurm_words_them(
    limited: SlurmCluster,
) -> None:
    assert limited.call(*BATCH, "--account=lab").strip().isdigit()  # as many as the limit allows
    for options, way_out in REFUSED.items():
        words = limited.call(*BATCH, *options.split())
        assert way_out in (advise_on_refusal(words) or ""), (options, words)
    limited.call("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    limited.call("scontrol", "update", "partition=urgent", "state=down")
    jobs = {
        limited.call(*BATCH, *options.split()).strip(): way_out
        for options, way_out in WAITING.items()
    }
    assert all(number.isdigit() for number in jobs)
    reasons: dict[str, str] = {}
    while len(reasons) < len(jobs):  # some have none until Slurm has looked at them
        lines = limited.call("squeue", "--noheader", "--format=%i|%r").splitlines()
        found = dict(re.split(r"\|", line.strip(), maxsplit=1) for line in lines)
        reasons = {
            number: found[number]
            for number in jobs
            if found.get(number) not in (None, "None", "Priority", "Resources")
        }
    limited.call("scancel", "--me")
    limited.call("scontrol", "update", "nodename=n2", "state=resume")
    limited.call("scontrol", "update", "partition=urgent", "state=up")
    limited.wait_until_idle()
    for number, reason in reasons.items():
        assert jobs[number] in (advise_on_waiting(reason, number) or ""), reason
