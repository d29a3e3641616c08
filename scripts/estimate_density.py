"""Estimate the spectral density of one matrix, or of its block of one layer, at a checkpoint."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.matrix_free import density_table
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def estimate_density(
    path_to_dataset: str, path_to_checkpoint: str, path_to_table: str, group: str,
    matrix: str, config: dict[str, Any],
) -> None:  # fmt: skip
    """Load network and data, estimate, write."""
    patterns = config["groups"].get(group)
    table, provenance = density_table(
        path_to_dataset, path_to_checkpoint, matrix, patterns, config["model"], config
    )
    write_table(table, path_to_table, "density", provenance | {"group": group})


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        estimate_density(
            snakemake.input.dataset,
            snakemake.input.checkpoint,
            snakemake.output.table,
            snakemake.wildcards.group,
            snakemake.wildcards.matrix,
            snakemake.params.config,
        )
