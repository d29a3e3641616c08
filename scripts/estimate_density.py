"""Estimate the spectral density of one matrix, or of a block of it, at a checkpoint."""

from typing import TYPE_CHECKING

from hesspipe.experiments.matrix_free import estimate_density
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        config = snakemake.params.config
        density = estimate_density(
            path_to_dataset=snakemake.input.dataset,
            path_to_checkpoint=snakemake.input.checkpoint,
            model=config["model"],
            matrix=snakemake.wildcards.matrix,
            group=snakemake.wildcards.group,
            patterns=config["patterns"],
            dtype=config["dtype"],
            batch_size=config["batch_size"],
            processes=config.get("processes", 1),
            density=config["density"],
        )
        write_result(density, snakemake.output.density)
