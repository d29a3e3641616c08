"""Evaluate loss and accuracy on the straight line through two checkpoints."""

from typing import TYPE_CHECKING

from hesspipe.experiments.landscape import evaluate_line
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        line = evaluate_line(
            path_to_dataset=snakemake.input.dataset,
            path_to_first=snakemake.input.start,
            path_to_second=snakemake.input.end,
            model=snakemake.params.config["model"],
            lines=snakemake.params.config["lines"],
        )
        write_result(line, snakemake.output.line)
