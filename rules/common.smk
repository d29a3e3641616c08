"""What the rules share: where results lie, and the project that decides what they read."""

from hesspipe.config.results import CONSTRAINTS, ResultKind, pattern
from hesspipe.hardware import has_gpu
from hesspipe.workflow.adopt import settle
from hesspipe.workflow.project import Project, dump

project = Project(settings, workflow.basedir)

# A GPU is shared by one job at a time where there is one; elsewhere jobs go side by side.
GPUS = int(has_gpu())


wildcard_constraints:
    **CONSTRAINTS,
    table=CONSTRAINTS["figure"],


# Files that DVC or a copy has restored are adopted or set aside before the graph is built.
if workflow.is_main_process:
    try:
        settle(workflow.main_snakefile, config, project.products())
    except RuntimeError as error:
        raise WorkflowError(str(error))
