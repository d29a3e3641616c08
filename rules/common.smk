"""Shared by all rules: paths of results, and the project, which determines their inputs."""

from snakemake.io import sourcecache_entry

from hesspipe.config.results import CONSTRAINTS, ResultKind, pattern
from hesspipe.hardware import has_gpu
from hesspipe.workflow.adopt import settle
from hesspipe.workflow.failures import TELLABLE, explain
from hesspipe.workflow.project import Project, dump
from hesspipe.workflow.remote_code import variables_for_jobs
from hesspipe.workflow.resources import JobResources
from hesspipe.workflow.stages import clean_folders


def source_of_workflow(path):
    return sourcecache_entry(path, path)


# Where results are kept in a storage, code is where the job is. Snakemake has a mark for files of the
# workflow; its `local` would let every such job run on this machine.
is_stored = workflow.storage_settings.default_storage_provider is not None
project = Project(settings, workflow.basedir, source_of_workflow if is_stored else str)
if is_stored and workflow.is_main_process:
    workflow.register_envvars(*variables_for_jobs())

# Of a job that can use one. Here jobs run in parallel on CPUs; where there is a GPU, the default
# profile lets one of them use it at a time.
GPUS = int(has_gpu()) if settings.gpus == "auto" else settings.gpus
requests = JobResources(
    settings,
    GPUS,
    executor,
    logger.warning,
    workflow.is_main_process
    and (
        executor.is_remote or workflow.global_resources.get("mem_mb").value is not None
    ),
)


# Seconds each, on the machine where Snakemake runs: as batch jobs they would mostly wait. Datasets
# are among them because downloads need a network, which compute nodes often lack.
localrules:
    make_dataset,
    import_state,
    count_outliers,
    summarize_outliers,
    decompose,
    align_units,
    smooth_densities,
    render_figure,
    render_table,
    check_claims,
    check_downloaded_claims,


wildcard_constraints:
    **CONSTRAINTS,
    table=CONSTRAINTS["figure"],


# Killed jobs have left temporary files. Files that DVC or a copy has restored are adopted or set
# aside before the graph is built.
if workflow.is_main_process:
    try:
        clean_folders()
        settle(workflow.main_snakefile, config, project.products, project.user_files())
    except TELLABLE as error:
        raise WorkflowError(explain(error))
    except RuntimeError as error:
        raise WorkflowError(str(error))
    for line in executor.warnings():
        logger.warning(line)
    executor.watch(logger.warning)
