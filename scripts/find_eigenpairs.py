"""Find the extreme eigenvalues of one matrix at one checkpoint, without the matrix."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.matrix_free import eigenpairs_table
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def find_eigenpairs(
    paths_to_network: list[str], path_to_table: str, matrix: str, config: dict[str, Any],
    own_code: list[str],
) -> None:  # fmt: skip
    """Load network and data, search, write; a killed search goes on."""
    table, provenance = eigenpairs_table(
        *paths_to_network, matrix, config["model"], config, own_code
    )
    write_table(table, path_to_table, "eigenpairs", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        find_eigenpairs(
            [snakemake.input.dataset, snakemake.input.checkpoint],
            snakemake.output.table,
            snakemake.wildcards.matrix,
            snakemake.params.config,
            list(snakemake.input.own),
        )
