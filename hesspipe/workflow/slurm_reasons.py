"""What Slurm's words mean of batch jobs that it refuses, or takes and does not start.

Each is told with the way out, in one line.
"""

from __future__ import annotations

import re

_OTHER_PARTITION = "name another partition with --default-resources slurm_partition=NAME"
_LESS = "--set-resources RULE:runtime=120 (minutes) or RULE:mem_mb=4000"
_ASSOCIATIONS = "sacctmgr show user $USER withassoc"
# Words of sbatch when it refuses a job, or of the executor when it does not call sbatch, the most
# telling first. A named limit (QOSMaxSubmitJobPerUserLimit) stands in a line before the others.
_REFUSALS = (
    (
        r"(Max|Grp)Submit",
        "A limit of your account or its quality of service allows no more batch jobs in the queue "
        f"({_ASSOCIATIONS}). With --jobs NUMBER this run has so many at most",
    ),
    (
        r"Invalid account|account \S+ appears to be invalid|account not permitted",
        "Slurm refused the account of a batch job. Name one of yours with --default-resources "
        f"slurm_account=NAME; {_ASSOCIATIONS} lists them",
    ),
    (
        r"Unable to test the validity of the given or guessed",
        "slurm_account is given, and this Slurm keeps no accounts: leave it out",
    ),
    (
        r"[Ii]nvalid partition (name )?specified|Required partition not available"
        r"|(group|Requested nodes) not (permitted to use|in) this partition"
        r"|No partition specified|partition configuration not available",
        f"A batch job may not use its partition, or it takes no jobs (sinfo): {_OTHER_PARTITION}",
    ),
    (
        r"time limit is invalid",
        "A batch job asks for more time than its partition allows (sinfo). Name a partition for "
        "longer jobs with --default-resources slurm_partition=NAME, or ask for less with "
        "--set-resources RULE:runtime=120 (minutes), where RULE is the name after `rule` above",
    ),
    (
        r"[Nn]ode configuration is not available|Memory specification can not be satisfied"
        r"|CPU count per node can not be satisfied|Node count specification invalid"
        r"|More processors requested than permitted|Invalid generic resource"
        r"|Invalid Trackable RESource",
        "No node of the partition has what a batch job asks for (sinfo -o '%P %c %m %G': "
        "processors, memory in MiB, GPUs). Name another partition with --default-resources "
        "slurm_partition=NAME, or ask for less with --set-resources RULE:mem_mb=4000, where RULE "
        "is the name after `rule` above",
    ),
    (
        r"Invalid (preferred )?feature specification",
        "No node has the feature that a batch job asks for (sinfo -o '%P %f' lists them): change "
        "`constraint`, or --constraint in slurm_extra",
    ),
    (
        r"[Rr]eservation is (invalid|not usable)|denied to requested reservation",
        "Slurm refused the reservation of a batch job: see scontrol show reservation, and change "
        "--slurm-reservation, or --reservation in slurm_extra",
    ),
    (
        r"Invalid qos|QOS not permitted",
        "Slurm refused the quality of service of a batch job. Name one of yours with --slurm-qos "
        f"NAME, or none; {_ASSOCIATIONS} format=account,qos lists them",
    ),
    (
        r"violates accounting/QOS policy",
        "Slurm refused a batch job by a limit of your account or its quality of service: see "
        f"{_ASSOCIATIONS}. Ask for less with {_LESS}, where RULE is the name after `rule` above, "
        "or have fewer jobs in the queue with --jobs NUMBER",
    ),
    (
        r"Argument list too long|parameter too long|script exceeds|max_(script|submit_line)_size",
        "The command of a batch job is longer than Slurm takes: add --slurm-pass-command-as-script",
    ),
)
# What passes by itself: the controller is away, or the login node has no room for a process.
_PASSING = (
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes|controller in standby"
    r"|Connection refused|temporarily u|Unable to establish control|Cannot allocate memory"
)
_FULL = _REFUSALS[0][0]
_NOT_NOW = "Slurm takes no batch job now"
# Reasons of squeue's %r for jobs in the queue that do not pass by waiting, the most telling first.
_WAITS = (
    (r"PartitionTimeLimit", "it asks for more time than its partition allows: see sinfo; {ask}"),
    (
        r"PartitionConfig",
        "its partition does not allow what it asks for, e.g. time or processors: see sinfo; {ask}",
    ),
    (
        r"PartitionNodeLimit|BadConstraints|ReqNodeNotAvail.*Reserved|NodeConfig",
        "no node of its partition has what it asks for: see sinfo; {ask}",
    ),
    (
        r"DOWN, DRAINED|ReqNodeNotAvail|PartitionDown|PartitionInactive|AllNodesDrained|NodeDown",
        "the nodes or the partition that it needs take no jobs now: see sinfo, or choose others "
        "with --default-resources slurm_partition=NAME",
    ),
    (
        r"ReservationDeleted|ResvDel",
        "its reservation is gone: end this run with Ctrl-C, and start it without the reservation",
    ),
    (
        r"^Reservation",
        "it waits until its reservation begins: see scontrol show reservation",
    ),
    (
        r"JobHeld|[Hh]eld",
        "somebody holds it: scontrol release {job}, or ask the administrators of the cluster",
    ),
    (
        r"InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed",
        f"its account or quality of service is not valid: see {_ASSOCIATIONS}, end this run with "
        "Ctrl-C, and name others with --default-resources slurm_account=NAME or --slurm-qos NAME",
    ),
    (
        r"Max\w+Per(Job|Node)|MaxCpu\w*PerJob|MaxWall|QOSMin|MaxMemPerLimit|MaxCPUsPerNode",
        f"it alone is above a limit of your account or its quality of service ({_ASSOCIATIONS}), "
        "so it will never start; {ask}",
    ),
    (
        r"Minutes|GrpWall|UsageThreshold",
        f"your account has used up its time ({_ASSOCIATIONS}): name another with "
        "--default-resources slurm_account=NAME, or ask the administrators of the cluster",
    ),
    (
        r"QOS|Assoc|Max\w+Per",
        f"a limit of your account or its quality of service ({_ASSOCIATIONS}): "
        "it waits until other jobs have ended, or for ever if it alone is above the limit; {ask}",
    ),
    (r"DependencyNeverSatisfied|Licenses", "Slurm does not start it; see scontrol show job {job}"),
    (
        r"^suspended$",
        "it has started, and others have its processors: it goes on when the cluster lets it "
        "(scontrol resume {job}, if it was you)",
    ),
)
_ASK = (
    "to ask for less, end this run with Ctrl-C and add --set-resources RULE:runtime=MINUTES or "
    "RULE:mem_mb=MIB"
)


def advise_on_refusal(words: str) -> str | None:
    """Say what a refusal of a job means, and the way out.

    Parameters
    ----------
    words : str
        Of `sbatch` or of the executor, or the log of a run: jobs that were refused for a time, and
        were taken later, do not count.

    Returns
    -------
    str or None
        None for words that are not known.

    Examples
    --------
    >>> advise_on_refusal("sbatch: error: Requested reservation is invalid")[:45]
    'Slurm refused the reservation of a batch job:'
    """
    final = "\n".join(line for line in words.splitlines() if _NOT_NOW not in line)
    return next((advice for sign, advice in _REFUSALS if re.search(sign, final)), None)


def advise_on_waiting(reason: str, job: str) -> str | None:
    """Say what lets a job wait that does not start by waiting, and the way out.

    Parameters
    ----------
    reason : str
        Slurm's, as squeue's `%r`, or "suspended".
    job : str
        The number of the job.

    Returns
    -------
    str or None
        None for what passes by itself.
    """
    found = next((advice for sign, advice in _WAITS if re.search(sign, reason)), None)
    return found and found.format(job=job, ask=_ASK)


def passes_by_itself(words: str) -> bool:
    """Whether a job is refused for what passes: a controller that is away for a minute."""
    return re.search(_PASSING, words) is not None


def is_full(words: str) -> bool:
    """Whether a job is refused because as many are in the queue as a limit allows."""
    return re.search(_FULL, words) is not None


def explain_pause(words: str, seconds: float) -> str:
    """Say that a job is refused for a time, and what happens then.

    Parameters
    ----------
    words : str
        Of `sbatch`, in one line.
    seconds : float
        Between attempts.
    """
    hint = ". --jobs NUMBER keeps a run below the limit" if is_full(words) else ""
    return f"{_NOT_NOW} ({words}): it is submitted again every {seconds:.0f} seconds{hint}"
