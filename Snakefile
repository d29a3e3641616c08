"""Every result of the paper, from data to figures."""

import atexit
import gc
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from hesspipe.config.expansion import expand
from hesspipe.config.loading import validate_config
from hesspipe.config.schema import Config
from hesspipe.config.yaml_files import read_yaml
from hesspipe.files import require_writable
from hesspipe.workflow.executors import Executor
from hesspipe.workflow.failures import TELLABLE, explain, explain_kills
from hesspipe.workflow.forecasts import Machine, excessive_needs
from hesspipe.workflow.groups import unmatched_groups
from hesspipe.workflow.planning import look_once
from hesspipe.workflow.stages import STAGES, folders_on_disk
from hesspipe.workflow.starts import fork_jobs
from hesspipe.workflow.states import unfit_states

min_version("9.18")

# The graph of thousands of jobs stays in memory, and so does what has been imported: with Python's
# thresholds, collections that visit all of it again and again are a fifth of a dry run. The one at
# the end would free it object by object: a second more.
gc.freeze()
atexit.register(gc.freeze)
gc.set_threshold(500_000, 20, 100)
look_once()


# The environments and containers that Snakemake would make for single jobs lack hesspipe.
if unfit := workflow.deployment_settings.deployment_method & {
    DeploymentMethod.CONDA,
    DeploymentMethod.APPTAINER,
}:
    names = " and ".join(sorted(method.name.lower() for method in unfit))
    raise WorkflowError(
        f"--software-deployment-method must be left out, got {names}: what Snakemake makes lacks "
        "hesspipe; run Snakemake inside one environment or container (docs/kubernetes.md)"
    )


# Snakemake's own reader takes the last of two equal keys, and 1:30:00 as 5400.
if workflow.is_main_process:
    try:
        for path in ["config.yaml", *workflow.overwrite_configfiles]:
            if Path(path).exists() or not workflow.overwrite_configfiles:
                read_yaml(path)
    except TELLABLE as error:
        raise WorkflowError(explain(error))


configfile: "config.yaml"


report: "report/workflow.rst"


# For messages: where a value may come from.
source = " with ".join(
    ["config.yaml", *map(str, workflow.overwrite_configfiles)]
    + ["--config"] * bool(workflow.config_settings.config_args)
)


# Jobs read this file as well; by then the main process has checked everything.
if workflow.is_main_process:
    try:
        settings = validate_config(config, source, Path())
    except TELLABLE as error:
        raise WorkflowError(explain(error))
    if mistakes := [*unmatched_groups(settings), *unfit_states(settings)]:
        raise WorkflowError("\n".join(f"{source}: {line}" for line in mistakes))
    executor = Executor.of(sys.argv[1:], workflow.global_resources["_nodes"].value)
    if mistakes := [*executor.mistakes(settings.gpus)]:
        raise WorkflowError("\n".join(mistakes))
else:
    settings = Config.model_validate(expand(config, Path()).raw)
    executor = Executor("of a job")


include: "rules/common.smk"
include: "rules/training.smk"
include: "rules/spectra.smk"
include: "rules/outliers.smk"
include: "rules/landscape.smk"
include: "rules/random_matrices.smk"
include: "rules/products.smk"


# A GPU's driver does not survive a fork.
if workflow.is_main_process and not executor.is_remote and GPUS == 0:
    fork_jobs()


# Jobs that this machine cannot do are refused in the dry run.
if workflow.is_main_process:
    try:
        most = workflow.global_resources.get("mem_mb").value
        machine = (
            Machine.elsewhere(settings.gpus, most)
            if executor.is_remote
            else Machine.present(most)
        )
        errors, warnings = excessive_needs(settings, sys.argv[1:], machine)
    except ValueError as error:
        raise WorkflowError(str(error))
    for line in warnings:
        logger.warning(f"{source}: {line}")
    if errors:
        raise WorkflowError("\n".join(f"{source}: {line}" for line in errors))


onstart:
    try:
        require_writable(
            [
                *folders_on_disk(),
                "logs",
                *Path("logs").glob("*"),
                ".snakemake/slurm_logs",
            ]
        )
    except OSError as error:
        raise WorkflowError(explain(error))


# A job that was killed may have succeeded when it was tried again.
onsuccess:
    if kills := explain_kills(log):
        print(kills, file=sys.stderr)


onerror:
    if kills := explain_kills(log):
        print(kills, file=sys.stderr)


# One rule for each stage, which builds what the stage owns.
for stage in STAGES:

    rule:
        name:
            stage
        input:
            project.input_of_stage(stage),


rule offline:
    input:
        lambda wildcards: project.offline_targets(),


rule all:
    default_target: True
    input:
        lambda wildcards: project.offline_targets() + project.downloaded_targets(),
