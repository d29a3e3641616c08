"""Shared by all rules: paths of results, and the project, which determines their inputs."""

from hesspipe.config.results import CONSTRAINTS, ResultKind, pattern
from hesspipe.hardware import has_gpu
from hesspipe.workflow.adopt import settle
from hesspipe.workflow.failures import TELLABLE, explain
from hesspipe.workflow.project import Project, dump
from hesspipe.workflow.stages import clean_folders

project = Project(settings, workflow.basedir)

# At most one job at a time uses the GPU, if there is one; on CPUs jobs run in parallel.
GPUS = int(has_gpu())


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
