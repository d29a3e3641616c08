"""Check a saved state dict, and store it as the checkpoint of its experiment."""

from typing import TYPE_CHECKING

from hesspipe.experiments.training import import_state
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        checkpoint = import_state(
            path_to_dataset=snakemake.input.dataset,
            path_to_state=snakemake.input.state,
            experiment=snakemake.wildcards.experiment,
            seed=int(snakemake.wildcards.seed),
            model=snakemake.params.config["model"],
            training=snakemake.params.config["training"],
        )
        checkpoint.write(snakemake.output.checkpoint)
