"""Put the hidden units of a trained network into the order of another seed's."""

from typing import TYPE_CHECKING

from hesspipe.experiments.landscape import align_units
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        checkpoint = align_units(
            path_to_dataset=snakemake.input.dataset,
            path_to_reference=snakemake.input.reference,
            path_to_other=snakemake.input.other,
            model=snakemake.params.config["model"],
        )
        checkpoint.write(snakemake.output.aligned)
