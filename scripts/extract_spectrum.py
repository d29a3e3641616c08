"""Compute the exact spectrum of one matrix at one checkpoint."""

from typing import TYPE_CHECKING, Any

from hesspipe.experiments.spectra import spectrum_table
from hesspipe.tables.store import write_table
from hesspipe.workflow.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def extract_spectrum(
    path_to_dataset: str, path_to_checkpoint: str, path_to_table: str, matrix: str,
    config: dict[str, Any],
) -> None:  # fmt: skip
    """Load network and data, compute, write."""
    table, provenance = spectrum_table(
        path_to_dataset, path_to_checkpoint, matrix, config["model"], **config["spectrum"]
    )
    write_table(table, path_to_table, "spectrum", provenance)


if __name__ == "__main__":
    with logged(snakemake.log[0]):
        extract_spectrum(
            snakemake.input.dataset,
            snakemake.input.checkpoint,
            snakemake.output.table,
            snakemake.wildcards.matrix,
            snakemake.params.config,
        )
