"""Find the extreme eigenvalues of one matrix at one checkpoint, without the matrix."""

from typing import TYPE_CHECKING

from hesspipe.experiments.matrix_free import find_eigenpairs
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        config = snakemake.params.config
        with find_eigenpairs(
            path_to_dataset=snakemake.input.dataset,
            path_to_checkpoint=snakemake.input.checkpoint,
            model=config["model"],
            matrix=snakemake.wildcards.matrix,
            dtype=config["dtype"],
            batch_size=config["batch_size"],
            processes=config.get("processes", 1),
            eigenpairs=config["eigenpairs"],
            user_code=[*snakemake.input.user, snakemake.input.code],
        ) as eigenpairs:
            write_result(eigenpairs, snakemake.output.eigenpairs)
