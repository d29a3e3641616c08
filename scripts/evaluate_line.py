"""Evaluate loss and accuracy on the straight line through two checkpoints."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.lines import line_table
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def evaluate_line(
    path_to_dataset: str, paths_to_ends: list[str], config: dict[str, Any], path_to_table: str
) -> None:
    """Load networks and data, evaluate, write."""
    table, provenance = line_table(path_to_dataset, *paths_to_ends, **config)
    write_table(table, path_to_table, "line", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        evaluate_line(
            snakemake.input.dataset,
            list(snakemake.input.ends),
            snakemake.params.config,
            snakemake.output.table,
        )
