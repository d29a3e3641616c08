"""Sample the largest eigenvalue of a spiked model across the transition: Theorem 1."""

from typing import TYPE_CHECKING

from hesspipe.experiments.spiked_models import sample_spikes
from hesspipe.tables.store import write_result
from hesspipe.workflow.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake):
        spikes, positions, fluctuations = sample_spikes(
            name=snakemake.wildcards.source, entry=snakemake.params.config["entry"]
        )
        write_result(spikes, snakemake.output.spikes)
        write_result(positions, snakemake.output.positions)
        write_result(fluctuations, snakemake.output.fluctuations)
