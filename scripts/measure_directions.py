"""Compare the leading eigenvectors of H with the class-mean gradients of the outputs."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.directions import directions_table
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def measure_directions(
    path_to_dataset: str, path_to_checkpoint: str, config: dict[str, Any], path_to_table: str
) -> None:
    """Load a network and its data, compare, write."""
    table, provenance = directions_table(
        path_to_dataset, path_to_checkpoint, config["model"], config["directions"]
    )
    write_table(table, path_to_table, "directions", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        measure_directions(
            snakemake.input.dataset, snakemake.input.checkpoint, snakemake.params.config,
            snakemake.output.table,
        )  # fmt: skip
