"""Compare the leading eigenvectors of H with the class-mean gradients of the outputs."""

from typing import TYPE_CHECKING

from hesspipe.experiments.directions import measure_directions
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        config = snakemake.params.config
        directions = measure_directions(
            path_to_dataset=snakemake.input.dataset,
            path_to_checkpoint=snakemake.input.checkpoint,
            model=config["model"],
            num_beyond=config["directions"]["num_beyond"],
            tolerance=config["directions"]["tolerance"],
        )
        write_result(directions, snakemake.output.directions)
